import { constants } from 'node:fs';
import { access, lstat, readFile, readlink, realpath } from 'node:fs/promises';
import { delimiter, dirname, isAbsolute, join } from 'node:path';
import { wrapError } from '../../shared/errors.ts';
import { shown as heldName } from './held.ts';

/** What a caged program reaches besides the system's programs and libraries. Absolute paths of files of ours; nobody else sees the folders. */
export interface CageFiles {
  reads?: readonly string[];
  /** They are there already. */
  writes?: readonly string[];
}

/** Whom a cage locks in. */
export interface CageUser {
  /** The agent's own is root: it needs no user namespace, and hands its files out. */
  root: boolean;
  uid: number;
  gid: number;
}

/** Made for this by sysusers.d/cistern.conf. */
const USER = 'cistern-qemu';
/** Where there is no such user: the user who owns nothing. */
const NOBODY = { uid: 65534, gid: 65534 };

/** Programs and libraries: folders, or links into /usr where a system has merged them. */
const SYSTEM = ['/usr', '/bin', '/sbin', '/lib', '/lib32', '/lib64', '/libx32', '/etc/ld.so.cache'];

/** Who programs in a cage are: `own` are whom the agent is, since nobody else can open files of VMs, least of all on NFS. */
export async function cageUser(own = false): Promise<CageUser> {
  const [uid, gid] = [process.getuid?.() ?? NOBODY.uid, process.getgid?.() ?? NOBODY.gid];
  if (uid !== 0 || own) return { root: uid === 0, uid, gid };
  const users = await readFile('/etc/passwd', 'utf8').catch(() => '');
  const [, ofUser, ofGroup] = new RegExp(`^${USER}:[^:]*:(\\d+):(\\d+):`, 'm').exec(users) ?? [];
  return { root: true, ...(ofUser === undefined ? NOBODY : { uid: Number(ofUser), gid: Number(ofGroup) }) };
}

/**
 * The words before a program's own that lock it in (bubblewrap's bwrap, unshare and setpriv of util-linux): no network, no process of
 * others in sight, no file but the system's programs and `files`, all read-only but `files.writes`, no privilege, an ordinary user.
 * When the worker or bwrap dies, everything inside is killed. (bwrap(1), setpriv(1), unshare(1))
 */
export async function cageWords(program: string, files: CageFiles, user: CageUser): Promise<string[]> {
  // bwrap would bring the loopback device up in a network of its own, for which root lacks CAP_NET_ADMIN under systemd
  const network = user.root ? ['unshare', '--net', '--'] : [];
  const spaces = ['--unshare-pid', '--unshare-ipc', '--unshare-uts', ...(user.root ? [] : ['--unshare-user', '--unshare-net'])];
  // should one eat the memory of the host, it goes before any VM does
  const words = ['choom', '-n', '1000', '--', ...network, 'bwrap', ...spaces, '--die-with-parent', '--new-session'];
  for (const path of SYSTEM) words.push(...(await shown(path)));
  const place = await programFile(program);
  if (place !== undefined && !place.startsWith('/usr/'))
    words.push(...foldersOf(place), '--ro-bind', await realpath(place), place);
  // qemu looks at /dev/null to see which locks there are
  words.push(...foldersOf('/dev/null'), '--dev-bind', '/dev/null', '/dev/null');
  for (const path of files.reads ?? []) words.push(...bound('--ro-bind', path));
  for (const path of files.writes ?? []) words.push(...bound('--bind', path));
  words.push('--remount-ro', '/', '--chdir', '/', '--');
  if (user.root) words.push('setpriv', ...asUser(user), '--inh-caps=-all', '--no-new-privs', '--');
  return words;
}

/** Root's own work needs to open what belongs to VMs, and no other privilege. */
const asUser = ({ uid, gid }: CageUser): string[] =>
  uid === 0
    ? ['--bounding-set=-all,+dac_override,+dac_read_search']
    : [`--reuid=${uid}`, `--regid=${gid}`, '--clear-groups', '--bounding-set=-all'];

/** Makes the folders above a path, empty ones that everybody inside may pass: bwrap's own would be closed to all but root. */
function foldersOf(path: string): string[] {
  const above = dirname(path);
  return above === '/' ? [] : [...foldersOf(above), '--dir', above];
}

/** A file at its own name inside. Of one that is held bwrap sees to it that it is the very file, whatever has its name by then. */
function bound(how: '--bind' | '--ro-bind', path: string): string[] {
  const [name, fd] = [heldName(path), /^\/proc\/self\/fd\/(\d+)$/.exec(path)?.[1]];
  return [...foldersOf(name), ...(fd === undefined ? [how, path] : [`${how}-fd`, `fd:${fd}`]), name];
}

/** How a path of the system shows inside, where it is there at all. */
async function shown(path: string): Promise<string[]> {
  const stat = await lstat(path).catch(absent);
  if (stat === undefined) return [];
  return stat.isSymbolicLink() ? ['--symlink', await readlink(path), path] : [...foldersOf(path), '--ro-bind', path, path];
}

/** Where a program lies. It need not be below /usr. One that is nowhere is told of by prlimit, inside. */
async function programFile(program: string): Promise<string | undefined> {
  for (const folder of (process.env['PATH'] ?? '').split(delimiter).filter(isAbsolute)) {
    const path = join(folder, program);
    const there = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (there) return path;
  }
  return undefined;
}

function absent(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw wrapError(error, 'IO_ERROR', 'looking at the folders of programs');
}
