/** Where images for the cache arrive: `tmp/fill-<imageId>/`. What was cut short stays there for the next attempt, for a day. */
import { lstat, mkdir, readdir, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { newId } from '../../../shared/id.ts';
import { holdFolder, removeTree, shown } from '../../host/held.ts';
import { areaPath, checkId, isId, type OpenPool, poolError } from './paths.ts';
import { makeFolder } from './scratch.ts';

const PREFIX = 'fill-';
const KEEP_HOURS = 24;

interface Fill extends AsyncDisposable {
  /** Of the held folder: see held.ts. */
  path: string;
  /** Its name in its parent, which is held too: what is renamed to publish it. */
  name: string;
  /** Lets go of it, and leaves what is in it. */
  keep(): void;
}

/** The folder of an image, as an earlier attempt left it or empty; removed when disposed of. It may outlive the work that `pool` was opened for. */
export async function openFill(pool: OpenPool, imageId: string): Promise<Fill> {
  using held = new DisposableStack();
  const tmp = held.use(await holdFolder(areaPath(pool, 'tmp')));
  const path = join(tmp.path, PREFIX + checkId(imageId));
  const folder = held.use(await makeFolder(path));
  const owner = held.move();
  const remove = async (): Promise<void> => {
    try {
      await removeTree(path);
    } catch (error) {
      process.emitWarning(`removing ${shown(path)}: ${String(error)}; it stays until it is swept`);
    } finally {
      owner.dispose();
    }
  };
  let removed: Promise<void> | undefined;
  return { path: folder.path, name: path, keep: () => owner.dispose(), [Symbol.asyncDispose]: () => (removed ??= remove()) };
}

/** Removes what was left of these images, or of all whose last attempt is a day ago. */
export async function sweepFills(pool: OpenPool, ids?: readonly string[]): Promise<void> {
  const tmp = areaPath(pool, 'tmp');
  try {
    const wanted = ids && new Set(ids.map(id => PREFIX + checkId(id)));
    const found = await readdir(tmp);
    const names = found.filter(one => one.startsWith(PREFIX) && isId(one.slice(PREFIX.length)) && (wanted?.has(one) ?? true));
    if (names.length === 0) return;
    const oldest = wanted === undefined ? (await clockOf(tmp)) - KEEP_HOURS * 3600_000 : 0;
    for (const name of names)
      if (wanted !== undefined || (await lastTouched(join(tmp, name))) < oldest) await removeTree(join(tmp, name));
  } catch (error) {
    throw poolError(error, `removing what was left of images in ${pool.root}`);
  }
}

/** What time it is for who stamps the files here: an NFS server's clock need not be ours. Its folder has a name that is swept. */
async function clockOf(folder: string): Promise<number> {
  const path = join(folder, newId());
  await mkdir(path);
  try {
    return (await lstat(path)).mtimeMs;
  } finally {
    await rmdir(path);
  }
}

/** When something last arrived in a folder, in milliseconds; one that is gone meanwhile was touched now, what is no folder never. */
async function lastTouched(path: string): Promise<number> {
  try {
    using folder = await holdFolder(path);
    const names = ['.', ...(await readdir(folder.path))];
    const times = await Promise.all(names.map(async name => (await lstat(join(folder.path, name))).mtimeMs));
    return Math.max(...times);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return Infinity;
    if (code === 'ENOTDIR' || code === 'ELOOP') return 0;
    throw error;
  }
}
