import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { copyFile, lstat, mkdir, open, readdir, realpath, rename, rm, statfs } from 'node:fs/promises';
import { basename, dirname, isAbsolute, join } from 'node:path';
import { z } from 'zod';
import { CisternError } from '../../shared/errors.ts';
import { holdFolder, removeTree, shown } from '../host/held.ts';
import type { RangeEnd, Sink } from '../transfer/ends.ts';
import { fileEnd, fileSink, fileSource, sync, type FileCodes } from '../transfer/file-end.ts';
import { fileError } from '../transfer/file-error.ts';
import type { BackupDriver, BackupStore } from './driver.ts';
import { segmentsOf } from './paths.ts';
import { probeName, staleProbes } from './probe.ts';

const CODES: FileCodes = { full: 'STORE_FULL', broken: 'STORE_IO_ERROR', missing: 'OBJECT_MISSING', denied: 'STORE_PERMISSION' };

const Config = z.strictObject({
  path: z
    .string()
    .max(4096)
    .refine(path => isAbsolute(path) && !path.includes('\0'), 'must be an absolute path')
    .describe('existing folder on the host, such as the mount point of a large disk'),
});
type Config = z.output<typeof Config>;

/** A folder on the host. Links below the folder are refused, wherever they lead; the folder itself may be reached through one. */
export const dir: BackupDriver<Config> = {
  type: 'dir',
  title: 'Folder on the host',
  shared: false,
  config: Config,
  connect: async ({ config }) => {
    const root = await realpath(config.path).catch((error: unknown) => {
      throw fileError(error, `opening the folder ${config.path}`, { ...CODES, missing: 'STORE_CONFIG' });
    });
    if (!(await lstat(root)).isDirectory())
      throw new CisternError('STORE_CONFIG', `opening the folder ${config.path}: it is not a folder`);
    return openFolder(root);
  },
};

/** All folders of a host: the file system then says whether it can share their blocks. */
const SITE = 'dir';
/** Holds the place of a file while it is copied. */
type Holder = () => Promise<Place>;

function openFolder(root: string): BackupStore {
  const nameOf = (path: string): string => `dir store:${path}`;
  const ranges = async (path: string): Promise<RangeEnd> => {
    const place = await resolve(root, path);
    return { ...fileEnd(place.file, CODES), release: () => Promise.resolve(place[Symbol.dispose]()) };
  };
  const sink = async (path: string, size: number, partSize?: number): Promise<Sink & { partial: string }> => {
    using stack = new DisposableStack();
    const { file: final } = stack.use(await resolve(root, path, true));
    const partial = partialOf(final);
    const inner = await fileSink({
      partial,
      final,
      size,
      name: nameOf(path),
      codes: CODES,
      ...(partSize !== undefined && { resume: { partSize, tag: '' } }),
    });
    const place = stack.move();
    return {
      ...inner,
      partial,
      publish: parts => inner.publish(parts).finally(() => place.dispose()),
      abort: () => inner.abort().finally(() => place.dispose()),
      site: SITE,
      copy: async object => {
        using from = await (object as Holder)();
        await shareBlocks(from.file, partial);
        return { name: nameOf(path), size, ranges: () => Promise.resolve(fileEnd(partial, CODES)) };
      },
      ...(inner.park && { park: () => inner.park!().finally(() => place.dispose()) }),
    };
  };
  return {
    source: async path => {
      using place = await resolve(root, path);
      const { name, size } = await fileSource(place.file, { name: nameOf(path), codes: CODES });
      const object: Holder = () => resolve(root, path);
      return { name, size, place: { site: SITE, object }, ranges: () => ranges(path) };
    },
    sink,
    read: async (path, limit) => {
      using place = await resolve(root, path);
      return await attempt(`reading ${nameOf(path)}`, () => readSmall(place.file, limit, nameOf(path)));
    },
    write: async (path, body) => {
      const arriving = await sink(path, 0);
      try {
        await attempt(`writing ${nameOf(path)}`, () => writeAll(arriving.partial, body));
      } catch (error) {
        await arriving.abort();
        throw error;
      }
      await arriving.publish([]);
    },
    list: async folder => {
      using inside = await resolve(root, `${folder}/any`).catch(absent);
      if (inside === undefined) return [];
      return await attempt(`listing ${nameOf(folder)}`, () => readdir(dirname(inside.file)));
    },
    remove: async folder => {
      using place = await resolve(root, folder).catch(absent);
      if (place === undefined) return;
      await attempt(`removing ${nameOf(folder)}`, async () => {
        await removeTree(place.file);
        await sync(place.folder); // what is said to have gone does not come back with a power cut
      });
    },
    check: () => check(root),
    capacity: () =>
      attempt(`asking for the free space of ${root}`, async () => {
        const { blocks, bavail, bsize } = await statfs(root);
        return { total: blocks * bsize, available: bavail * bsize };
      }),
    close: () => Promise.resolve(),
  };
}

/** One name for all attempts at an object: the next one goes on with it, or replaces it. */
const partialOf = (final: string): string => join(dirname(final), `.partial-${basename(final)}`);

/** Makes `to` a copy of `from` that takes no room: the file system must be the same one, and able to (XFS, Btrfs). */
async function shareBlocks(from: string, to: string): Promise<void> {
  const clone = `${to}.clone`; // a failed try removes what was there
  try {
    await copyFile(from, clone, constants.COPYFILE_FICLONE_FORCE);
    await rename(clone, to);
  } catch (error) {
    await rm(clone, { force: true });
    throw error;
  }
}

/** Where an object is: its path in a folder that is held, so that nothing put in the folder's place leads elsewhere. */
interface Place extends Disposable {
  file: string;
  /** The folder that it is in, held. */
  folder: string;
}

/** The place of an object, no folder on the way being a link; with `make`, missing folders are made, durably. */
async function resolve(root: string, path: string, make = false): Promise<Place> {
  const segments = segmentsOf(path);
  using held = new DisposableStack();
  const enter = async (folder: string): Promise<string> => {
    const entered = await attempt(`using ${folder}`, () => holdFolder(folder).catch(refuseLink(folder)));
    return held.use(entered).path;
  };
  let at = await enter(root);
  for (const segment of segments.slice(0, -1)) {
    const [parent, folder] = [at, join(at, segment)];
    if (make && (await attempt(`making the folder ${folder}`, () => makeFolder(folder))))
      await attempt(`making the folder ${folder}`, () => sync(parent));
    at = await enter(folder);
  }
  const owner = held.move();
  return { file: join(at, segments.at(-1)!), folder: at, [Symbol.dispose]: () => owner.dispose() };
}

const refuseLink =
  (path: string) =>
  (error: NodeJS.ErrnoException): never => {
    if (error.code !== 'ENOTDIR' && error.code !== 'ELOOP') throw error;
    throw new CisternError('STORE_PERMISSION', `using ${shown(path)} of a dir store: it is a link or a file, not a folder`);
  };

function absent(error: unknown): undefined {
  if (!(error instanceof CisternError) || error.code !== 'OBJECT_MISSING') throw error;
}

/** False where something has that name already. Not mkdir's own `recursive`, which says ENOENT of a read-only file system. */
const makeFolder = (path: string): Promise<boolean> =>
  mkdir(path).then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'EEXIST') return false;
      throw error;
    },
  );

async function readSmall(path: string, limit: number, name: string): Promise<Buffer> {
  // a planted pipe would keep the opening waiting for ever, and with it a thread of the worker
  await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  const stat = await file.stat();
  if (!stat.isFile()) throw new CisternError('OBJECT_MISSING', `reading ${name}: it is not a regular file`);
  const { size } = stat;
  if (size > limit)
    throw new CisternError('MANIFEST_INVALID', `reading ${name}: it has ${size} bytes, more than the ${limit} allowed`);
  // no more than was looked at: the file may grow meanwhile
  const { buffer, bytesRead } = await file.read(Buffer.alloc(size), 0, size, 0);
  return buffer.subarray(0, bytesRead);
}

async function writeAll(path: string, body: Buffer): Promise<void> {
  await using file = await open(path, constants.O_WRONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  await file.writeFile(body);
}

async function check(root: string): Promise<void> {
  const probe = join(root, probeName());
  const body = randomBytes(64);
  await attempt(`writing, reading and removing a probe in ${root}`, async () => {
    try {
      await using file = await open(probe, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o600);
      await file.write(body, 0, body.length, 0);
      const { buffer } = await file.read(Buffer.alloc(body.length), 0, body.length, 0);
      if (!buffer.equals(body))
        throw new CisternError('IO_ERROR', `reading a probe back from ${root}: it is not what was written`);
    } finally {
      await rm(probe, { force: true });
    }
    for (const name of staleProbes(await readdir(root))) await rm(join(root, name), { force: true });
  });
}

async function attempt<T>(tried: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw fileError(error, tried, CODES);
  }
}
