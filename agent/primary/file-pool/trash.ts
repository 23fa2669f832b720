import { readdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { throwIfAborted } from '../../host/run.ts';
import type { DiskFile } from '../driver.ts';
import { makeDurable } from './durable.ts';
import { refuseOpen } from './locks.ts';
import { metaPath, readJson, syncPath, toJson, VolumeMeta } from './meta.ts';
import { areaPath, entryPath, isFolder, poolError, type PoolRoot } from './paths.ts';
import { discard, finishRemovals } from './scratch.ts';
import { allocated, deletedAt, eachEntry } from './usage.ts';

/**
 * Moves volumes to the trash; returns those that are there now. What is in neither place is gone already, which is no error.
 * VOLUME_IN_USE, and none is moved, where a program writes to one of them.
 */
export async function trash(pool: PoolRoot, volumeIds: string[], signal: AbortSignal): Promise<string[]> {
  const trashed: string[] = [];
  try {
    await refuseOpen(await layers(pool, volumeIds), pool.shared, signal);
    for (const id of volumeIds) if (await moveToTrash(pool, id)) trashed.push(id);
    if (trashed.length === 0) return trashed;
    await noteDeletion(pool, trashed);
    await Promise.all([syncPath(areaPath(pool, 'trash')), syncPath(areaPath(pool, 'volumes'))]);
    return trashed;
  } catch (error) {
    throw poolError(error, `moving volumes of ${pool.root} to the trash`);
  }
}

/** The files of volumes that qemu may have open. */
async function layers(pool: PoolRoot, volumeIds: string[]): Promise<DiskFile[]> {
  const files: DiskFile[] = [];
  for (const id of volumeIds) {
    const folder = entryPath(pool, 'volumes', id);
    if (!(await isFolder(folder))) continue;
    for (const entry of await readdir(folder, { withFileTypes: true }))
      if (entry.isFile() && entry.name.endsWith('.qcow2')) files.push({ path: join(folder, entry.name), format: 'qcow2' });
  }
  return files;
}

async function moveToTrash(pool: PoolRoot, id: string): Promise<boolean> {
  const from = entryPath(pool, 'volumes', id);
  const to = entryPath(pool, 'trash', id);
  if (!(await isFolder(from))) return isFolder(to);
  if (await isFolder(to)) await discard(pool, to, 'volume', id); // an older one of the same id: made again after a delete
  await rename(from, to);
  return true;
}

/** Writes `deletedAt` into each meta.json, where a crash has not left it unwritten for `deletedAt()` to guess. */
async function noteDeletion(pool: PoolRoot, ids: string[]): Promise<void> {
  const drafts: string[] = [];
  const now = new Date().toISOString();
  for (const id of ids) {
    const path = metaPath(entryPath(pool, 'trash', id));
    const meta = await readJson(path, VolumeMeta);
    if (meta === undefined || meta.deletedAt !== undefined) continue;
    const draft = `${path}.next`;
    await rm(draft, { force: true });
    await writeFile(draft, toJson({ ...meta, deletedAt: now }), { flag: 'wx' });
    drafts.push(draft);
  }
  await makeDurable(areaPath(pool, 'trash'), drafts);
  for (const draft of drafts) await rename(draft, draft.slice(0, -'.next'.length));
}

/** Removes for good what went to the trash before a time; `freed` counts what the files took in bytes. */
export async function purge(pool: PoolRoot, before: Date, signal: AbortSignal): Promise<{ removed: string[]; freed: number }> {
  const removed = await finishRemovals(pool, 'volume');
  let freed = 0;
  const due = await eachEntry(pool, 'trash', signal, async id => ({
    id,
    at: await deletedAt(join(areaPath(pool, 'trash'), id)),
  }));
  for (const { id, at } of due) {
    throwIfAborted(signal);
    if (at >= before) continue;
    const folder = entryPath(pool, 'trash', id);
    const bytes = await allocated(folder);
    await discard(pool, folder, 'volume', id);
    freed += bytes;
    removed.push(id);
  }
  return { removed, freed };
}
