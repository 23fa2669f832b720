/** Files and folders on the server, by absolute path. */
import { posix } from 'node:path';
import { CisternError } from '../../../shared/errors.ts';
import type { Capacity } from '../../../shared/model.ts';
import { answer, ANSWER_MS, type Control, type Live } from './control.ts';

/** What is used of a file's attributes. */
export interface Stats {
  size: number;
  isFile(): boolean;
  isDirectory(): boolean;
}

/** fsync of a large file on a slow disk takes a while; a server that is gone is noticed by keep-alives before. */
const FSYNC_MS = 600_000;
const FOLDER_DEPTH = 16;

export const statFile = (control: Control, path: string): Promise<Stats> =>
  control.ask(`looking at ${path}`, ({ session }) => answer<Stats>(done => session.stat(path, done)));

/** Makes an empty file that must not exist yet, and gives it `size` bytes of hole. */
export async function makeFile(control: Control, path: string, size: number): Promise<void> {
  await control.ask(`making ${path}`, async ({ session }) => {
    const handle = await answer<Buffer>(done => session.open(path, 'wx', { mode: 0o644 }, done));
    try {
      if (size > 0) await answer<void>(done => session.fsetstat(handle, { size }, error => done(error, undefined)));
    } finally {
      await answer<void>(done => session.close(handle, error => done(error, undefined)));
    }
  });
}

/** Waits until a file is on the server's disk, where the server offers fsync@openssh.com. */
export async function syncFile(control: Control, path: string): Promise<void> {
  const fsync = async ({ session }: Live): Promise<void> => {
    const handle = await answer<Buffer>(done => session.open(path, 'r+', done));
    try {
      await answer<void>(done => session.ext_openssh_fsync(handle, error => done(error, undefined)));
    } catch (error) {
      if (!unsupported(error)) throw error;
    } finally {
      await answer<void>(done => session.close(handle, error => done(error, undefined)));
    }
  };
  await control.ask(`bringing ${path} to the disk`, fsync, FSYNC_MS);
}

/**
 * Brings a file to the server's disk and renames it over `final`. SFTP cannot fsync a folder; but on file systems with a journal the
 * fsync of a file that was just renamed brings its new name to the disk as well.
 */
export async function publishFile(control: Control, partial: string, final: string): Promise<void> {
  await syncFile(control, partial);
  await control.ask(`renaming ${partial}`, ({ client }) => client.posixRename(partial, final));
  await syncFile(control, final);
}

export async function readFile(control: Control, path: string, limit: number): Promise<Buffer> {
  const { size } = await statFile(control, path);
  if (size > limit)
    throw new CisternError('MANIFEST_INVALID', `reading ${path}: it has ${size} bytes, more than the ${limit} allowed`);
  return control.ask(`reading ${path}`, async ({ client }) => (await client.get(path)) as Buffer, ANSWER_MS + size / 100);
}

/** Writes the whole of a new file. */
export async function writeFile(control: Control, path: string, body: Buffer): Promise<void> {
  const send = ({ session }: Live): Promise<void> =>
    answer<void>(done => session.writeFile(path, body, { flag: 'wx', mode: 0o644 }, error => done(error, undefined)));
  await control.ask(`writing ${path}`, send, ANSWER_MS + body.length / 100);
}

/** Adds to the end of a file. */
export async function appendFile(control: Control, path: string, body: Buffer): Promise<void> {
  const send = ({ session }: Live): Promise<void> =>
    answer<void>(done => session.appendFile(path, body, error => done(error, undefined)));
  await control.ask(`writing ${path}`, send);
}

/** Makes a folder and those above it, down to but not including `root`, which must be there. */
export async function makeFolder(control: Control, root: string, segments: string[]): Promise<void> {
  let at = root;
  for (const segment of segments) {
    at = posix.join(at, segment);
    const path = at;
    await control.ask(`making the folder ${path}`, async ({ session }) => {
      const made = await answer<void>(done => session.mkdir(path, error => done(error, undefined))).then(
        () => true,
        (error: unknown) => error,
      );
      if (made === true) return;
      const stat = await answer<Stats>(done => session.stat(path, done)).catch(() => undefined); // version 3 has no "exists"
      if (!stat?.isDirectory()) throw made;
    });
  }
}

export async function removeFile(control: Control, path: string): Promise<void> {
  await gone(
    control.ask(`removing ${path}`, ({ session }) => answer<void>(done => session.unlink(path, error => done(error, undefined)))),
  );
}

/** Names in a folder; none where it is not there. */
export async function listFolder(control: Control, path: string): Promise<string[]> {
  const entries = await gone(
    control.ask(`listing ${path}`, ({ session }) => answer<{ filename: string }[]>(done => session.readdir(path, done))),
  );
  return (entries ?? []).map(({ filename }) => filename).filter(name => name !== '.' && name !== '..');
}

/** Removes a folder and all below it. Links are removed, not followed. */
export async function removeFolder(control: Control, path: string, depth = FOLDER_DEPTH): Promise<void> {
  if (depth === 0) throw new CisternError('STORE_PERMISSION', `removing ${path}: folders are nested deeper than ${FOLDER_DEPTH}`);
  const entries = await gone(
    control.ask(`listing ${path}`, ({ session }) =>
      answer<{ filename: string; attrs: Stats }[]>(done => session.readdir(path, done)),
    ),
  );
  if (entries === undefined) return;
  for (const { filename, attrs } of entries) {
    if (filename === '.' || filename === '..') continue;
    const below = posix.join(path, filename);
    await (attrs.isDirectory() ? removeFolder(control, below, depth - 1) : removeFile(control, below));
  }
  await gone(
    control.ask(`removing ${path}`, ({ session }) => answer<void>(done => session.rmdir(path, error => done(error, undefined)))),
  );
}

/** Free space, and how many files more can be made, by statvfs@openssh.com; undefined where the server does not offer it. */
export async function freeSpace(control: Control, path: string): Promise<(Capacity & { names: number }) | undefined> {
  return control.ask(`asking for the free space of ${path}`, async ({ session }) => {
    try {
      const fs = await answer<Record<'f_frsize' | 'f_blocks' | 'f_bavail' | 'f_files' | 'f_favail', number>>(done =>
        session.ext_openssh_statvfs(path, done),
      );
      const [block, files] = [Number(fs.f_frsize), Number(fs.f_files)];
      // some file systems count no files
      const names = files === 0 ? Infinity : Number(fs.f_favail);
      return { total: Number(fs.f_blocks) * block, available: Number(fs.f_bavail) * block, names };
    } catch (error) {
      if (unsupported(error)) return undefined;
      throw error;
    }
  });
}

/** What ssh2 throws before it asks, and what a server answers, where an extension is not there. */
const unsupported = (error: unknown): boolean =>
  (error as { code?: unknown }).code === 8 || /does not support this extended request/i.test((error as Error).message);

/** The answer, or undefined where the thing is not there (any more). */
async function gone<T>(asked: Promise<T>): Promise<T | undefined> {
  try {
    return await asked;
  } catch (error) {
    if (error instanceof CisternError && error.code === 'OBJECT_MISSING') return undefined;
    throw error;
  }
}
