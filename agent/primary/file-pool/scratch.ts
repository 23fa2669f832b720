import { mkdir, readdir, rename, rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { areaPath, checkId, entryPath, isFolder, poolError, type PoolRoot } from './paths.ts';

export interface Scratch extends AsyncDisposable {
  path: string;
}

/**
 * `tmp/<taskId>/<name>/`, empty, removed when disposed of. Where that fails (the pool is gone) the work's own error is the one to
 * tell, so a warning is all: `sweep` removes the rest when the task is known to be dead.
 */
export async function openScratch(pool: PoolRoot, taskId: string, name: string): Promise<Scratch> {
  const task = entryPath(pool, 'tmp', taskId);
  const path = join(task, name);
  try {
    if (!(await made(task))) await isFolder(task); // which refuses a link
    if (!(await made(path))) {
      await rm(path, { recursive: true, force: true });
      await mkdir(path, 0o700);
    }
  } catch (error) {
    throw poolError(error, `making ${path}`);
  }
  const remove = async (): Promise<void> => {
    try {
      // mostly its contents were published and it is empty
      await rmdir(path).catch(() => rm(path, { recursive: true, force: true }));
      await rmdir(task);
    } catch (error) {
      if (!['ENOTEMPTY', 'ENOENT', 'EEXIST'].includes((error as NodeJS.ErrnoException).code ?? ''))
        process.emitWarning(`removing ${path}: ${String(error)}; it stays until the next sweep`);
    }
  };
  return { path, [Symbol.asyncDispose]: remove };
}

/** Makes a folder; false where something has that name. */
const made = (path: string): Promise<boolean> =>
  mkdir(path, 0o700).then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'EEXIST') return false;
      throw error;
    },
  );

/** Removes what dead tasks left. */
export async function sweep(pool: PoolRoot, taskIds: string[]): Promise<void> {
  for (const id of taskIds) {
    const path = entryPath(pool, 'tmp', id);
    if (await isFolder(path)) await removeTree(path);
  }
}

/**
 * Takes an entry out of sight by one rename, then removes it: a crash in between leaves nothing half removed where anybody looks.
 * `kind` and id are in the name of what is on its way out, so that `finishRemovals` can tell what it was.
 */
export async function discard(pool: PoolRoot, path: string, kind: 'image' | 'volume', id: string): Promise<void> {
  const gone = join(areaPath(pool, 'tmp'), `gone-${kind}-${checkId(id)}`);
  try {
    if (await isFolder(gone)) await rm(gone, { recursive: true, force: true });
    await rename(path, gone);
  } catch (error) {
    throw poolError(error, `removing ${path}`);
  }
  await removeTree(gone);
}

/** Ends the removals that a crash cut short; returns their ids. */
export async function finishRemovals(pool: PoolRoot, kind: 'image' | 'volume'): Promise<string[]> {
  const prefix = `gone-${kind}-`;
  const tmp = areaPath(pool, 'tmp');
  const names = (await readdir(tmp)).filter(name => name.startsWith(prefix));
  for (const name of names) if (await isFolder(join(tmp, name))) await removeTree(join(tmp, name));
  return names.map(name => name.slice(prefix.length));
}

const removeTree = (path: string): Promise<void> =>
  rm(path, { recursive: true, force: true }).catch((error: unknown) => {
    throw poolError(error, `removing ${path}`);
  });
