/** Whatever way an address is written, and whatever is around it: only public ones are let through. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { allowedAddresses, allowList, hostOf, notPublic, parseUrl } from '../../agent/host/url-guard.ts';
import { CisternError } from '../../shared/errors.ts';

const none = allowList([]);
const octet = fc.integer({ min: 0, max: 255 });
type V4 = [number, number, number, number];
const v4: fc.Arbitrary<V4> = fc.tuple(octet, octet, octet, octet);
const numberOf = ([a, b, c, d]: V4): number => ((a * 256 + b) * 256 + c) * 256 + d;

/** Addresses that must never be reached, as RFC 6890 and the clouds have them. */
const forbidden: fc.Arbitrary<V4> = fc
  .tuple(
    fc.constantFrom<[V4, number]>(
      [[0, 0, 0, 0], 8],
      [[10, 0, 0, 0], 8],
      [[127, 0, 0, 0], 8],
      [[169, 254, 0, 0], 16],
      [[172, 16, 0, 0], 12],
      [[192, 168, 0, 0], 16],
      [[100, 64, 0, 0], 10],
      [[224, 0, 0, 0], 4],
      [[240, 0, 0, 0], 4],
      [[168, 63, 129, 16], 32],
      [[198, 18, 0, 0], 15],
      [[192, 0, 0, 0], 24],
      [[192, 0, 2, 0], 24],
      [[192, 88, 99, 0], 24],
      [[198, 51, 100, 0], 24],
      [[203, 0, 113, 0], 24],
      [[255, 255, 255, 255], 32],
    ),
    v4,
  )
  .map(([[net, prefix], any]) => {
    const low = 2 ** (32 - prefix);
    const n = numberOf(net) + (numberOf(any) % low);
    return [Math.floor(n / 2 ** 24), (n >>> 16) & 255, (n >>> 8) & 255, n & 255];
  });

/** One number as inet_aton takes it: decimal, octal or hexadecimal, with leading zeros. */
const spelled = (n: number): fc.Arbitrary<string> =>
  fc.constantFrom(
    String(n),
    `0x${n.toString(16)}`,
    `0X${n.toString(16).toUpperCase()}`,
    `0${n.toString(8)}`,
    `000${n.toString(8)}`,
    `0x000${n.toString(16)}`,
  );
/** All the ways to write an IPv4 address in a URL: one to four numbers, full-width digits and dots, percent signs, a last dot. */
const writtenV4 = (address: V4): fc.Arbitrary<string> => {
  const [a, b] = address;
  const n = numberOf(address);
  const parts = fc.constantFrom<number[]>([n], [a, n % 2 ** 24], [a, b, n % 2 ** 16], address);
  return fc
    .tuple(
      parts.chain(list => fc.tuple(...list.map(spelled))),
      fc.constantFrom('.', '。', '．', '%2e'),
      fc.constantFrom('', '.'),
      fc.boolean(),
      fc.boolean(),
    )
    .map(([list, dot, end, wide, percent]) => {
      const text = list.join(dot);
      if (wide && !text.includes('%'))
        return [...text].map(ch => (/[0-9]/.test(ch) ? String.fromCodePoint(ch.charCodeAt(0) + 0xfee0) : ch)).join('') + end;
      return (percent && !text.includes('%') ? text.replace(/[0-9]/g, ch => `%3${ch}`) : text) + end;
    });
};
/** IPv6 with `::` where it can be, leading zeros, capitals, or a dotted end. */
const writtenV6 = (words: number[]): fc.Arbitrary<string> =>
  fc.tuple(fc.boolean(), fc.boolean(), fc.boolean(), fc.boolean()).map(([pad, capitals, gap, dotted]) => {
    const text = words.map(w => (pad ? w.toString(16).padStart(4, '0') : w.toString(16)));
    const [high = 0, low = 0] = words.slice(6);
    const list = dotted ? [...text.slice(0, 6), [high >> 8, high & 255, low >> 8, low & 255].join('.')] : text;
    const zero = words.findIndex((w, i) => i < 6 && w === 0);
    let end = zero;
    while (end < 6 && words[end] === 0) end++;
    const joined =
      gap && zero >= 0 && (end < list.length || !dotted)
        ? `${list.slice(0, zero).join(':')}::${list.slice(end).join(':')}`
        : list.join(':');
    return capitals ? joined.toUpperCase() : joined;
  });
const wordsOf = ([a, b, c, d]: V4): [number, number] => [a * 256 + b, c * 256 + d];
/** IPv6 addresses whose packets end at an IPv4 address: v4-mapped, NAT64 with both prefixes, 6to4, v4-compatible, ISATAP. */
const around = (address: V4): fc.Arbitrary<number[]> => {
  const [high, low] = wordsOf(address);
  return fc.constantFrom(
    [0, 0, 0, 0, 0, 0xffff, high, low],
    [0x64, 0xff9b, 0, 0, 0, 0, high, low],
    [0x64, 0xff9b, 1, 0, 0, 0, high, low],
    [0x2002, high, low, 0, 0, 0, 0, 1],
    [0, 0, 0, 0, 0, 0, high, low],
    [0x2606, 0x4700, 0, 0, 0, 0x5efe, high, low],
    [0x2606, 0x4700, 7, 1, 0x200, 0x5efe, high, low],
    [0xfe80, 0, 0, 0, 0, 0x5efe, high, low],
  );
};
const dressed = (host: string): fc.Arbitrary<string> =>
  fc
    .tuple(
      fc.constantFrom('http', 'https', 'HTTP', 'hTTps'),
      fc.constantFrom('//', '/', '\\\\', '/\\', '///', '', '\t//', '//\n'),
      fc.constantFrom('', 'example.com@', '8.8.8.8:80@', 'a:b%40@', '%00@'),
      fc.constantFrom('', ':80', ':0000443', ':'),
      fc.constantFrom('', '/', '/@8.8.8.8/', '?@8.8.8.8', '#@8.8.8.8', '\\@8.8.8.8', '/..//8.8.8.8'),
    )
    .map(([scheme, slashes, user, port, rest]) => `${scheme}:${slashes}${user}${host}${port}${rest}`);

/** Where a connection would go, or undefined where none would be made. */
function reached(text: string): string[] | undefined {
  try {
    const url = parseUrl(text);
    return allowedAddresses(url, [hostOf(url)], none, []);
  } catch (error) {
    assert.ok(error instanceof CisternError && ['URL_REFUSED', 'BAD_REQUEST'].includes(error.code), String(error));
    return undefined;
  }
}

describe('the URL guard, whatever it is given', () => {
  it('lets no forbidden IPv4 address through, however it is written and whatever is around it', () => {
    fc.assert(
      fc.property(forbidden.chain(writtenV4).chain(dressed), text => reached(text) === undefined),
      { numRuns: 3000 },
    );
  });

  it('lets none through that is wrapped in IPv6', () => {
    const text = forbidden
      .chain(around)
      .chain(writtenV6)
      .chain(host => dressed(`[${host}]`));
    fc.assert(
      fc.property(text, text => reached(text) === undefined),
      { numRuns: 3000 },
    );
  });

  it('refuses these, which others have let through', () => {
    const hosts = [
      ...[
        '0',
        '0.0.0.0',
        '127.1',
        '0x7f.1',
        '017700000001',
        '2130706433',
        '0x7f000001',
        '127.0.0.1.',
        '１２７.０.０.１',
        '①②⑦.1',
      ],
      ...['169.254.169.254', '0xa9fea9fe', '169.16689662', '100.100.100.200', '168.63.129.16', '255.255.255.255', '192.0.0.192'],
      ...[
        '[::]',
        '[::1]',
        '[::127.0.0.1]',
        '[::ffff:7f00:1]',
        '[::ffff:0:127.0.0.1]',
        '[fd00:ec2::254]',
        '[fec0::1]',
        '[100::1]',
      ],
      ...['[64:ff9b::a9fe:a9fe]', '[64:ff9b:1::8.8.8.8]', '[2002:7f00:1::1]', '[2002:a00:1:1::]', '[2001:0:808:808::1]'],
      ...['[2606:4700::5efe:127.0.0.1]', '[2606:4700::200:5efe:a9fe:a9fe]', '[2606:4700::5efe:808:808]', '[fe80::5efe:8.8.8.8]'],
      ...['[5f00::1]', '[2001:db8::1]', '[3fff::1]', '[ff02::1]', '[fe80::1%25eth0]', '[::1%251]'],
    ];
    assert.deepEqual(
      hosts.filter(host => reached(`http://${host}/`) !== undefined),
      [],
    );
  });

  it('lets no local, link-local, multicast, documentation or Teredo IPv6 through, nor one with a zone', () => {
    const word = fc.integer({ min: 0, max: 0xffff });
    const first = fc.oneof(
      fc.constant([0]),
      fc.integer({ min: 0xfc00, max: 0xfdff }).map(w => [w]),
      fc.integer({ min: 0xfe80, max: 0xfeff }).map(w => [w]),
      fc.integer({ min: 0xfec0, max: 0xfeff }).map(w => [w]),
      fc.integer({ min: 0xff00, max: 0xffff }).map(w => [w]),
      fc.constantFrom([0x2001, 0], [0x2001, 0xdb8], [0x3fff, 0], [0x64, 0xff9b, 1], [0x100, 0, 0, 0]),
    );
    const words = fc
      .tuple(first, fc.array(word, { minLength: 8, maxLength: 8 }))
      .map(([start, rest]) => [...start, ...rest].slice(0, 8));
    const isMapped = (w: number[]): boolean => w.slice(0, 6).join() === '0,0,0,0,0,65535';
    const text = words.filter(w => !isMapped(w)).chain(writtenV6);
    fc.assert(
      fc.property(
        text.chain(host => dressed(`[${host}]`)),
        url => reached(url) === undefined,
      ),
      { numRuns: 3000 },
    );
    fc.assert(
      fc.property(
        text,
        fc.constantFrom('%25eth0', '%eth0', '%251', '%'),
        (host, zone) => reached(`http://[${host}${zone}]/`) === undefined,
      ),
    );
    fc.assert(fc.property(text, fc.constantFrom('%eth0', '%1'), (host, zone) => notPublic(`${host}${zone}`) !== undefined));
  });

  it('lets public addresses through, in IPv6 too, to exactly where they are', () => {
    const open = v4.filter(address => notPublic(address.join('.')) === undefined);
    fc.assert(
      fc.property(
        open.chain(address => fc.tuple(fc.constant(address), writtenV4(address))),
        ([address, text]) => {
          assert.deepEqual(reached(`http://${text}/`), [address.join('.')]);
        },
      ),
      { numRuns: 2000 },
    );
    const word = fc.integer({ min: 0, max: 0xffff });
    const global = fc
      .tuple(fc.integer({ min: 0x2003, max: 0x3ffe }), fc.array(word, { minLength: 7, maxLength: 7 }))
      .map(([a, rest]) => [a, ...rest])
      .filter(words => words[5] !== 0x5efe);
    fc.assert(
      fc.property(global.chain(writtenV6), text => reached(`https://[${text}]/`)?.length === 1),
      { numRuns: 2000 },
    );
    // most of what is left of IPv4 is public: the guard does not pass by refusing all
    assert.ok(fc.sample(v4, 1000).filter(address => notPublic(address.join('.')) === undefined).length > 700);
  });

  it('connects to the public ones of several answers of DNS, and to none where all are private', () => {
    const url = parseUrl('http://mirror.example/');
    const mixed = ['10.0.0.1', '8.8.8.8', '::1', '2606:4700::1111', '::ffff:169.254.169.254', 'fe80::1%eth0'];
    assert.deepEqual(allowedAddresses(url, mixed, none, []), ['8.8.8.8', '2606:4700::1111']);
    const many = Array.from({ length: 1000 }, (_, i) => `10.0.${i >> 8}.${i & 255}`);
    assert.throws(
      () => allowedAddresses(url, many, none, []),
      (error: Error) => error.message.length < 300 && /996 more/.test(error.message),
    );
  });

  it("refuses this host's own public addresses, since what listens here may trust the host", () => {
    const url = parseUrl('http://self.example/');
    const own = ['8.8.4.4', '2606:4700::99'];
    for (const address of ['8.8.4.4', '::ffff:8.8.4.4', '64:ff9b::808:404', '2606:4700:0:0::99', '2606:4700::0099'])
      assert.throws(() => allowedAddresses(url, [address], none, own), /an address of this host/, address);
    assert.deepEqual(allowedAddresses(url, ['8.8.8.8'], none, own), ['8.8.8.8']);
    assert.deepEqual(allowedAddresses(url, ['8.8.4.4'], allowList(['8.8.4.4']), own), ['8.8.4.4']);
  });

  it('throws nothing but its own errors, for any text', () => {
    const piece = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.constantFrom('http:', '//', '[', ']', '@', '\\', '%', '::', '.', '0x', '127.1', 'localhost', ':', '#', '?', '\0', '\n'),
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 8 }), parts => {
        const found = reached(parts.join(''));
        // a name that DNS must answer for, never an address
        assert.ok(found === undefined || found.every(host => notPublic(host) === undefined));
      }),
      { numRuns: 1000 },
    );
  });
});
