import { rename, rm, writeFile } from 'node:fs/promises';
import { throwIfAborted } from '../../host/run.ts';
import { makeDurable } from './durable.ts';
import { refuseOpen } from './locks.ts';
import { metaPath, readMeta, syncPath, toMeta, VolumeMeta, writeMeta } from './meta.ts';
import { areaPath, entryPath, holdEntry, isFolder, isFull, poolError, type OpenPool } from './paths.ts';
import { keepReserve, moveEntry } from './reserve.ts';
import { discard, finishRemovals, syncRemovals } from './scratch.ts';
import { allocated, deletedAt, eachEntry } from './usage.ts';

/**
 * Moves volumes to the trash; returns those that are there now. What is in neither place is gone already, which is no error.
 * VOLUME_IN_USE, and none is moved, where a program writes to one of them.
 */
export async function trash(pool: OpenPool, volumeIds: string[], signal: AbortSignal): Promise<string[]> {
  const trashed: string[] = [];
  const moved = new Set<string>();
  try {
    await refuseOpen(pool, volumeIds, signal);
    for (const id of volumeIds) {
      if (await moveToTrash(pool, id)) moved.add(id);
      else if (!(await isFolder(entryPath(pool, 'trash', id)))) continue;
      trashed.push(id);
    }
    if (trashed.length === 0) return trashed;
    await noteDeletion(pool, trashed, moved);
    await syncMoves(pool);
    return trashed;
  } catch (error) {
    throw poolError(error, `moving volumes of ${pool.root} to the trash`);
  }
}

/** Brings volumes back from the trash; returns those that it brought. What stands in its place already is left alone. */
export async function restore(pool: OpenPool, volumeIds: string[]): Promise<string[]> {
  const restored: string[] = [];
  try {
    for (const id of volumeIds) {
      const [from, to] = [entryPath(pool, 'trash', id), entryPath(pool, 'volumes', id)];
      if (!(await isFolder(from)) || (await isFolder(to))) continue;
      using held = await holdEntry(from);
      if (held !== undefined) await forgetDeletion(held.path);
      await moveEntry(pool, from, to);
      restored.push(id);
    }
    if (restored.length > 0) await syncMoves(pool);
    return restored;
  } catch (error) {
    throw poolError(error, `bringing volumes of ${pool.root} back from the trash`);
  }
}

const syncMoves = async (pool: OpenPool): Promise<void> =>
  void (await Promise.all([syncPath(areaPath(pool, 'trash')), syncPath(areaPath(pool, 'volumes'))]));

/** Removes these from the trash at once. */
export async function discardTrash(pool: OpenPool, volumeIds: string[]): Promise<void> {
  await finishRemovals(pool, 'volume');
  for (const id of volumeIds) {
    const folder = entryPath(pool, 'trash', id);
    if (await isFolder(folder)) await discard(pool, folder, 'volume', id);
  }
  await syncRemovals(pool, 'trash');
}

async function moveToTrash(pool: OpenPool, id: string): Promise<boolean> {
  const from = entryPath(pool, 'volumes', id);
  const to = entryPath(pool, 'trash', id);
  if (!(await isFolder(from))) return false;
  if (await isFolder(to)) await discard(pool, to, 'volume', id); // an older one of the same id: made again after a delete
  await moveEntry(pool, from, to);
  return true;
}

/**
 * Writes `deletedAt` into the meta.json of those that were moved now, or moved before a crash and have none. A volume is in the
 * trash without that note as well, and `deletedAt()` then goes by its folder: so a full disk, which a delete is to help against,
 * is no reason to fail, nor is a damaged meta.json.
 */
async function noteDeletion(pool: OpenPool, ids: string[], moved: Set<string>): Promise<void> {
  using held = new DisposableStack();
  const drafts: string[] = [];
  const now = new Date().toISOString();
  try {
    for (const id of ids) {
      const folder = await holdEntry(entryPath(pool, 'trash', id));
      if (folder === undefined) continue;
      held.use(folder);
      const path = metaPath(folder.path);
      const meta = await readMeta(path, VolumeMeta).catch(() => undefined);
      if (meta === undefined || (meta.deletedAt !== undefined && !moved.has(id))) continue;
      const draft = `${path}.next`;
      await rm(draft, { force: true });
      drafts.push(draft);
      await writeFile(draft, toMeta({ ...meta, deletedAt: now }), { flag: 'wx' });
    }
    await makeDurable(areaPath(pool, 'trash'), drafts);
    for (const draft of drafts) await rename(draft, draft.slice(0, -'.next'.length));
  } catch (error) {
    for (const draft of drafts) await rm(draft, { force: true });
    if (!isFull(error)) throw error;
  }
}

/** The opposite of `noteDeletion`, in time for the next delete. */
async function forgetDeletion(folder: string): Promise<void> {
  const meta = await readMeta(metaPath(folder), VolumeMeta).catch(() => undefined);
  if (meta?.deletedAt === undefined) return;
  const { deletedAt: _, ...rest } = meta;
  await writeMeta(metaPath(folder), rest).catch((error: unknown) => {
    if (!isFull(error)) throw error; // an old note does no harm: the next delete writes a new one
  });
}

/** Removes these from the trash for good, and with `before` all that went there earlier; `freed` counts what the files took in bytes. */
export async function purge(
  pool: OpenPool,
  volumeIds: string[],
  before: Date | null,
  signal: AbortSignal,
): Promise<{ removed: string[]; freed: number }> {
  const named = new Set(volumeIds);
  const removed = await finishRemovals(pool, 'volume');
  let freed = 0;
  const due = await eachEntry(pool, 'trash', signal, async (id, folder) => ({
    id,
    goes: named.has(id) || (before !== null && (await deletedAt(folder)) < before),
  }));
  for (const { id, goes } of due) {
    throwIfAborted(signal);
    if (!goes) continue;
    const path = entryPath(pool, 'trash', id);
    using folder = await holdEntry(path);
    if (folder === undefined) continue;
    const bytes = await allocated(folder.path);
    await discard(pool, path, 'volume', id);
    freed += bytes;
    removed.push(id);
  }
  if (removed.length > 0) await syncRemovals(pool, 'trash');
  await keepReserve(pool);
  return { removed, freed };
}
