import { CisternError } from '../../shared/errors.ts';

const FLAG = null;
const NUMBER = /^\d{1,6}$/;
const PORT = /^\d{1,5}$/;
const TRANSPORT = /^(tcp|tcp6|udp|udp6|rdma|rdma6)$/;

/** The options of nfs(5) that a pool may set, each with what its value must look like; FLAG: it takes none. */
const ALLOWED: Record<string, RegExp | typeof FLAG> = {
  hard: FLAG,
  soft: FLAG,
  softerr: FLAG,
  timeo: NUMBER,
  retrans: NUMBER,
  retry: NUMBER,
  rsize: /^\d{4,7}$/,
  wsize: /^\d{4,7}$/,
  nconnect: /^([1-9]|1[0-6])$/,
  proto: TRANSPORT,
  port: PORT,
  mountport: PORT,
  mountproto: TRANSPORT,
  sec: /^(sys|none|krb5|krb5i|krb5p)$/,
  noatime: FLAG,
  nodiratime: FLAG,
  relatime: FLAG,
  lookupcache: /^(all|none|pos|positive)$/,
  actimeo: NUMBER,
  acregmin: NUMBER,
  acregmax: NUMBER,
  acdirmin: NUMBER,
  acdirmax: NUMBER,
  ac: FLAG,
  noac: FLAG,
  lock: FLAG,
  nolock: FLAG,
  local_lock: /^(none|all|flock|posix)$/,
};

/** A pool holds disks: nothing on it is ever a program or a device of the host. */
const ALWAYS = ['nosuid', 'nodev', 'noexec'];

/** The value of `mount -o` for these options. MOUNT_OPTION_REFUSED where one is not on the list, malformed or given twice. */
export function mountOptions(options: readonly string[]): string {
  const seen = new Set<string>();
  for (const option of options) {
    const equals = option.indexOf('=');
    const name = equals < 0 ? option : option.slice(0, equals);
    const value = equals < 0 ? FLAG : option.slice(equals + 1);
    if (ALWAYS.includes(option)) continue;
    const pattern = Object.hasOwn(ALLOWED, name) ? ALLOWED[name] : undefined;
    if (pattern === undefined) throw refused(option, 'is not allowed');
    if (pattern === FLAG ? value !== FLAG : value === FLAG || !pattern.test(value)) throw refused(option, 'has no valid value');
    if (seen.has(name)) throw refused(option, 'is given twice');
    seen.add(name);
  }
  // Without "retry" mount.nfs goes on for two minutes; the controller tries again by itself.
  const retry = seen.has('retry') ? [] : ['retry=0'];
  return [...options.filter(option => !ALWAYS.includes(option)), ...retry, ...ALWAYS].join(',');
}

const refused = (option: string, why: string): CisternError => {
  const list = Object.entries(ALLOWED).map(([name, pattern]) =>
    pattern === FLAG ? name : `${name}=${pattern.source.slice(1, -1)}`,
  );
  return new CisternError(
    'MOUNT_OPTION_REFUSED',
    `mount option ${JSON.stringify(option.split('=')[0])} ${why}; allowed are ${list.join(', ')} (${ALWAYS.join(', ')} are always set)`,
  );
};
