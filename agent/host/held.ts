/**
 * Folders and files held open. Node has no openat(2), but `/proc/self/fd/N/NAME` resolves as that does (proc_pid_fd(5)): beneath the
 * very folder that was opened, whatever somebody puts in its place meanwhile. Checking a path and then using it is a race that who
 * can write to the storage (another host, its server) wins; opening step by step without following links and using what was opened is none.
 */
import * as fs from 'node:fs';
import { readdir, rmdir, unlink } from 'node:fs/promises';
import { promisify } from 'node:util';

export interface Held extends Disposable {
  readonly fd: number;
  /** Leads to exactly what is held, for system calls of this process and for programs that `run` starts, while it is held. */
  readonly path: string;
}

const { O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = fs.constants;
const FOLDER = O_RDONLY | O_DIRECTORY | O_NOFOLLOW;
/** A pipe in place of a file would make the opening wait for ever. */
const FILE = O_RDONLY | O_NOFOLLOW | O_NONBLOCK;
const CLAIM = fs.constants.O_RDWR | fs.constants.O_CREAT | fs.constants.O_EXCL;
const HANDLE = /\/proc\/self\/fd\/(\d+)(?:\/\.(?=$|[^\w.-]))?/g;

/** What was opened under each descriptor, for messages: kept until the number is used again, as the error may come after the closing. */
const known = new Map<number, { name: string; held: boolean }>();

const openFd = promisify(fs.open);

/** Holds a folder. Its last segment must be one: a link or anything else there is ENOTDIR (or ELOOP). Throws what open(2) says. */
export const holdFolder = async (path: string | Buffer): Promise<Held> => hold(await openFd(path, FOLDER), path, '/.');

/** The same, blocking: for many in a row on the way of new volumes. */
export const holdFolderSync = (path: string): Held => hold(fs.openSync(path, FOLDER), path, '/.');

/** Holds a file for reading; a link there is ELOOP. What kind of file it is must be asked of the descriptor. */
export const holdFile = async (path: string): Promise<Held> => hold(await openFd(path, FILE, 0), path, '');

/** Makes and holds a new file (0644); EEXIST where anything has that name already. */
export const claimFile = async (path: string): Promise<Held> => hold(await openFd(path, CLAIM, 0o644), path, '');

/** `/.` at its end lets lstat and O_NOFOLLOW see the folder rather than the link in /proc. */
function hold(fd: number, path: string | Buffer, end: '/.' | ''): Held {
  const entry = { name: shown(path.toString()), held: true };
  known.set(fd, entry);
  return {
    fd,
    path: `/proc/self/fd/${fd}${end}`,
    [Symbol.dispose]: () => {
      if (!entry.held) return;
      entry.held = false;
      fs.closeSync(fd);
    },
  };
}

/** Whether a path leads to something held itself: through a link in /proc, which alone may be followed. */
export const isHeld = (path: string): boolean => /^\/proc\/self\/fd\/\d+$/.test(path);

/** `text` with the paths of what is or was held as they were when it was opened: for messages. */
export const shown = (text: string): string => text.replace(HANDLE, (whole, fd: string) => known.get(Number(fd))?.name ?? whole);

/** Arguments in which paths beneath what is held are made to work in a child that gets `fds` as its descriptors from 3 on. */
export function handDown(args: readonly string[]): { args: string[]; fds: number[]; shown: (text: string) => string } {
  const fds: number[] = [];
  const place = (fd: number): number => (fds.includes(fd) ? fds.indexOf(fd) : fds.push(fd) - 1);
  const handed = args.map(arg =>
    arg
      // a descriptor itself, as bwrap takes it
      .replace(/^fd:(\d+)$/, (_, text: string) => String(3 + place(Number(text))))
      .replace(/\/proc\/self\/fd\/(\d+)/g, (whole, text: string) =>
        known.get(Number(text))?.held === true ? `/proc/self/fd/${3 + place(Number(text))}` : whole,
      ),
  );
  const names = fds.map(fd => known.get(fd)?.name ?? '');
  return { args: handed, fds, shown: text => text.replace(HANDLE, (whole, fd: string) => names[Number(fd) - 3] ?? whole) };
}

/** Deeper folders than this are nobody's volumes. */
const DEPTH = 64;

/**
 * Removes a file, a link, or a folder with all below it; nothing where it is gone already. No link is followed, and what is put in
 * place of a folder meanwhile is not entered. Names are bytes: a name that is no UTF-8 must not stay for ever.
 */
export async function removeTree(path: string | Buffer, depth = DEPTH): Promise<void> {
  const isFolder = await unlink(path).then(
    () => false,
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'EISDIR') return true;
      return missing(error);
    },
  );
  if (isFolder !== true) return;
  if (depth === 0) throw new Error(`${shown(path.toString())} lies more than ${DEPTH} folders deep`);
  try {
    using folder = await holdFolder(path);
    for (const name of await readdir(folder.path, { encoding: 'buffer' }))
      await removeTree(Buffer.concat([Buffer.from(`${folder.path}/`), name]), depth - 1);
    await rmdir(path);
  } catch (error) {
    missing(error as NodeJS.ErrnoException);
  }
}

function missing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
}
