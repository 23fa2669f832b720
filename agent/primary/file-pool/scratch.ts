import { mkdir, readdir, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type Held, holdFolder, removeTree, shown } from '../../host/held.ts';
import { syncPath } from './meta.ts';
import { moveEntry } from './reserve.ts';
import { type Area, areaPath, checkId, entryPath, foreign, holdEntry, isId, type OpenPool, poolError } from './paths.ts';

export interface Scratch extends AsyncDisposable {
  /** Of the held folder: see held.ts. */
  path: string;
  /** Its name in its parent, which is held too: what is renamed to publish it. */
  name: string;
}

/**
 * `tmp/<taskId>/<name>/`, empty, held, removed when disposed of; it may outlive the piece of work that `pool` was opened for. Where
 * removing fails (the pool is gone) the work's own error is the one to tell, so a warning is all: `sweep` removes the rest when the
 * task is known to be dead.
 */
export async function openScratch(pool: OpenPool, taskId: string, name: string): Promise<Scratch> {
  using held = new DisposableStack();
  const tmp = held.use(await holdFolder(areaPath(pool, 'tmp')));
  const task = held.use(await makeFolder(join(tmp.path, checkId(taskId))));
  const path = join(task.path, name);
  const folder = await makeEmpty(path).catch(async (error: unknown) => {
    // on a full disk the outer folder may be all that could be made
    await rmdir(join(tmp.path, taskId)).catch(() => undefined); // the first error is the one to tell
    throw poolError(error, `making ${path}`);
  });
  held.use(folder);
  const owner = held.move();
  const remove = async (): Promise<void> => {
    try {
      // mostly its contents were published and it is empty
      await rmdir(path).catch(() => removeTree(path));
      await rmdir(join(tmp.path, taskId));
    } catch (error) {
      if (!['ENOTEMPTY', 'ENOENT', 'EEXIST'].includes((error as NodeJS.ErrnoException).code ?? ''))
        process.emitWarning(`removing ${shown(path)}: ${String(error)}; it stays until the next sweep`);
    } finally {
      owner.dispose();
    }
  };
  let removed: Promise<void> | undefined;
  return { path: folder.path, name: path, [Symbol.asyncDispose]: () => (removed ??= remove()) };
}

/** Makes a folder that may be there already, and holds it. */
export async function makeFolder(path: string): Promise<Held> {
  try {
    await made(path);
  } catch (error) {
    throw poolError(error, `making ${path}`);
  }
  return (await holdEntry(path)) ?? fail(path);
}

async function makeEmpty(path: string): Promise<Held> {
  if (!(await made(path))) {
    await removeTree(path);
    await mkdir(path, 0o700);
  }
  return (await holdEntry(path)) ?? fail(path);
}

const fail = (path: string): never => {
  throw foreign(path, 'folder');
};

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
export async function sweep(pool: OpenPool, taskIds: string[]): Promise<void> {
  for (const id of taskIds) await removeAll(entryPath(pool, 'tmp', id));
}

/**
 * Takes an entry out of sight by one rename, then removes it: a crash in between leaves nothing half removed where anybody looks.
 * `kind` and id are in the name of what is on its way out, so that `finishRemovals` can tell what it was.
 */
export async function discard(pool: OpenPool, path: string, kind: 'image' | 'volume', id: string): Promise<void> {
  const gone = join(areaPath(pool, 'tmp'), `gone-${kind}-${checkId(id)}`);
  try {
    await removeTree(gone);
    await moveEntry(pool, path, gone);
  } catch (error) {
    throw poolError(error, `removing ${path}`);
  }
  await removeAll(gone);
}

/** Makes removals from an area durable, once for many: the controller forgets what it is told has gone, also across a power cut. */
export async function syncRemovals(pool: OpenPool, area: Area): Promise<void> {
  try {
    await syncPath(areaPath(pool, area));
    await syncPath(areaPath(pool, 'tmp'));
  } catch (error) {
    throw poolError(error, `removing from the ${area} of ${pool.root}`);
  }
}

/** Removes what every task left: after a power cut the agent may not even know which tasks it had. */
export async function sweepAll(pool: OpenPool): Promise<void> {
  const names = await readdir(areaPath(pool, 'tmp')).catch((error: unknown) => {
    throw poolError(error, `reading the tmp of ${pool.root}`);
  });
  await sweep(pool, names.filter(isId)); // prettier-ignore
}

/** Ends the removals that a crash cut short; returns their ids. */
export async function finishRemovals(pool: OpenPool, kind: 'image' | 'volume'): Promise<string[]> {
  const prefix = `gone-${kind}-`;
  const tmp = areaPath(pool, 'tmp');
  const names = (await readdir(tmp)).filter(name => name.startsWith(prefix) && isId(name.slice(prefix.length)));
  for (const name of names) await removeAll(join(tmp, name));
  return names.map(name => name.slice(prefix.length));
}

const removeAll = (path: string): Promise<void> =>
  removeTree(path).catch((error: unknown) => {
    throw poolError(error, `removing ${path}`);
  });
