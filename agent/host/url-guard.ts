import { BlockList, isIP, isIPv4 } from 'node:net';
import { networkInterfaces } from 'node:os';
import { CisternError } from '../../shared/errors.ts';

/** IPv4 that is not the public Internet (IANA special-purpose registry), and Azure's metadata address, which looks public. */
const NOT_PUBLIC_V4: [string, number, string][] = [
  ['0.0.0.0', 8, 'unspecified'],
  ['10.0.0.0', 8, 'private'],
  ['100.64.0.0', 10, 'carrier-grade NAT'],
  ['127.0.0.0', 8, 'loopback'],
  ['169.254.0.0', 16, 'link-local, cloud metadata'],
  ['172.16.0.0', 12, 'private'],
  ['192.0.0.0', 24, 'reserved'],
  ['192.0.2.0', 24, 'documentation'],
  ['192.88.99.0', 24, '6to4 relay'],
  ['192.168.0.0', 16, 'private'],
  ['198.18.0.0', 15, 'benchmarking'],
  ['198.51.100.0', 24, 'documentation'],
  ['203.0.113.0', 24, 'documentation'],
  ['224.0.0.0', 4, 'multicast'],
  ['240.0.0.0', 4, 'reserved'],
  ['168.63.129.16', 32, 'cloud metadata'],
];

/** IPv6 is refused unless it is in 2000::/3, and there where it is one of these. */
const NOT_PUBLIC_V6: [string, number, string][] = [
  ['2001::', 23, 'reserved, Teredo'],
  ['2001:db8::', 32, 'documentation'],
  ['3fff::', 20, 'documentation'],
];

/** A test for one subnet. */
function subnet(net: string, prefix: number): (address: string) => boolean {
  const family = isIPv4(net) ? 'ipv4' : 'ipv6';
  const list = new BlockList();
  list.addSubnet(net, prefix, family);
  // BlockList would find an IPv4 net in v4-mapped addresses too; those are unwrapped here.
  return address => isIPv4(address) === (family === 'ipv4') && list.check(address, family);
}

const NOT_PUBLIC = [...NOT_PUBLIC_V4, ...NOT_PUBLIC_V6].map(([net, prefix, why]) => ({ holds: subnet(net, prefix), why }));

/** Why an address is not a public one; undefined where it is. An IPv4 address inside an IPv6 one is judged as itself. */
export function notPublic(address: string): string | undefined {
  if (isIPv4(address)) return NOT_PUBLIC.find(net => net.holds(address))?.why;
  const words = ipv6Words(address);
  if (words === undefined) return 'no address';
  const hidden = embeddedV4(words);
  if (hidden !== undefined) return notPublic(hidden);
  if (isIsatap(words)) return 'an IPv4 tunnel (ISATAP)';
  if ((words[0] ?? 0) >> 13 !== 1) return 'not global IPv6';
  return NOT_PUBLIC.find(net => net.holds(address))?.why;
}

/** The IPv4 address that packets to such an IPv6 address end at: v4-mapped, NAT64 (RFC 6052) and 6to4 (RFC 3056). */
function embeddedV4(words: number[]): string | undefined {
  const dotted = (high = 0, low = 0): string => [high >> 8, high & 255, low >> 8, low & 255].join('.');
  const starts = (...prefix: number[]): boolean => prefix.every((word, i) => words[i] === word);
  if (starts(0, 0, 0, 0, 0, 0xffff) || starts(0x64, 0xff9b, 0, 0, 0, 0)) return dotted(words[6], words[7]);
  return starts(0x2002) ? dotted(words[1], words[2]) : undefined;
}

/**
 * Whether the last 64 bits name an IPv4 address that a router of the site may send the packets on to (ISATAP, RFC 5214, section 6.1), whatever
 * the network before them is. No server of images has such an address: they are refused without a look at the one inside.
 */
const isIsatap = (words: number[]): boolean => ((words[4] ?? 0) & 0xfdff) === 0 && words[5] === 0x5efe;

/** The eight words of an IPv6 address; undefined where it is none, or has a zone (`%eth0`). */
function ipv6Words(address: string): number[] | undefined {
  if (isIP(address) !== 6 || address.includes('%')) return undefined;
  // The URL parser writes every spelling, dotted endings too, as hexadecimal words with at most one gap.
  const [head = '', tail] = new URL(`http://[${address}]`).hostname.slice(1, -1).split('::');
  const words = (part: string): number[] => (part === '' ? [] : part.split(':').map(word => parseInt(word, 16)));
  const after = tail === undefined ? [] : words(tail);
  const before = words(head);
  return [...before, ...Array<number>(8 - before.length - after.length).fill(0), ...after];
}

/** Says whether an operator allows an address by `import.allow` although it is not public. */
export type AllowList = (address: string) => boolean;

/** Addresses and CIDR blocks as a test. BAD_REQUEST for what is neither. */
export function allowList(allow: readonly string[]): AllowList {
  const nets = allow.map(entry => {
    const [address = '', prefix, ...more] = entry.split('/');
    const bits = isIP(address) === 4 ? 32 : 128;
    const length = prefix === undefined ? bits : /^\d{1,3}$/.test(prefix) ? Number(prefix) : NaN;
    if (isIP(address) === 0 || address.includes('%') || more.length > 0 || !(length <= bits))
      throw new CisternError('BAD_REQUEST', `import.allow: "${entry}" is neither an address nor a CIDR block`);
    return subnet(address, length);
  });
  return address => {
    const words = ipv6Words(address);
    // ::ffff:a.b.c.d is a.b.c.d to the kernel.
    const plain = words?.slice(0, 6).join() === '0,0,0,0,0,65535' ? (embeddedV4(words) ?? address) : address;
    return nets.some(holds => holds(plain));
  };
}

/** `url` as one that may be fetched as far as its text tells: http or https, with a host. URL_REFUSED, BAD_REQUEST. */
export function parseUrl(url: string, base?: URL): URL {
  const parsed = URL.parse(url, base?.href);
  if (parsed === null) throw new CisternError('BAD_REQUEST', 'the URL of the image is not a valid URL');
  if (parsed.protocol !== 'http:' && parsed.protocol !== 'https:')
    throw new CisternError('URL_REFUSED', `${redact(parsed)}: only http and https are fetched`);
  return parsed;
}

/** Host of a URL as dns and net take it: without the brackets of IPv6. */
export const hostOf = (url: URL): string => url.hostname.replace(/^\[|\]$/g, '');

/** One way of writing each place that packets can go to: the IPv4 address inside an IPv6 one, or the words of the latter. */
function placeOf(address: string): string {
  const words = ipv6Words(address);
  return words === undefined ? address : (embeddedV4(words) ?? words.join(':'));
}

/** The addresses of this host's own interfaces. A public one leads past its firewall to what listens here, as loopback does. */
const ownAddresses = (): string[] =>
  Object.values(networkInterfaces()).flatMap(entries => (entries ?? []).map(entry => entry.address.split('%')[0] ?? ''));

/** Those of a host's addresses that may be connected to. URL_REFUSED, with the reasons, where none is left. */
export function allowedAddresses(
  url: URL,
  addresses: readonly string[],
  allowed: AllowList,
  own: readonly string[] = ownAddresses(),
): string[] {
  const here = new Set(own.map(placeOf));
  const refusal = (address: string): string | undefined =>
    notPublic(address) ?? (here.has(placeOf(address)) ? 'an address of this host' : undefined);
  const good = addresses.filter(address => allowed(address) || refusal(address) === undefined);
  if (good.length > 0) return good;
  // whoever owns the name says how many addresses it has
  const reasons = addresses.slice(0, 4).map(address => `${address} (${refusal(address)})`);
  if (addresses.length > reasons.length) reasons.push(`${addresses.length - reasons.length} more`);
  throw new CisternError('URL_REFUSED', `${redact(url)} leads to ${reasons.join(', ')}`);
}

/** No longer is a path shown: a redirect can be as long as a whole answer's head. */
const SHOWN = 200;

/** A URL as errors and logs may show it: short, without user, password and query, which often hold secrets. */
export function redact({ protocol, host, pathname, search }: URL): string {
  const path = pathname.length > SHOWN ? `${pathname.slice(0, SHOWN)}…` : pathname;
  return `${protocol}//${host.slice(0, 260)}${path}${search === '' ? '' : '?…'}`;
}
