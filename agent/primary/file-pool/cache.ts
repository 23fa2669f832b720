import { join } from 'node:path';
import { CisternError } from '../../../shared/errors.ts';
import { ImageFormat } from '../../../shared/model.ts';
import type { DiskFile } from '../driver.ts';
import { backingOf } from './backing.ts';
import { sweepFills } from './fill.ts';
import { CacheMeta, metaPath, readMeta } from './meta.ts';
import { shown } from '../../host/held.ts';
import { entryName, entryPath, fileStat, holdEntry, type OpenPool, type PoolRoot } from './paths.ts';
import { keepReserve } from './reserve.ts';
import { discard, finishRemovals, syncRemovals } from './scratch.ts';
import { unsee } from './stamp.ts';
import { allocated, eachEntry } from './usage.ts';

export const cacheFile = (pool: PoolRoot, imageId: string, format: ImageFormat): DiskFile => ({
  path: join(entryName(pool, 'cache', imageId), `image.${format}`),
  format,
});

/** The cached image as it was published, or undefined where it is not in the cache. CACHE_DAMAGED where only a part of it is. */
export async function cached(
  pool: OpenPool,
  imageId: string,
  format: ImageFormat,
): Promise<(CacheMeta & { allocated: number }) | undefined> {
  using held = await holdEntry(entryPath(pool, 'cache', imageId));
  if (held === undefined) return undefined;
  const folder = held.path;
  const refuse = (found: string): never => {
    throw new CisternError('CACHE_DAMAGED', `the cached image ${shown(folder)}: ${found}`);
  };
  const meta = await readMeta(metaPath(folder), CacheMeta).catch((error: unknown) => {
    if (error instanceof CisternError && error.message.includes(' is damaged: ')) return refuse(error.message);
    throw error;
  });
  const file = await fileStat(join(folder, `image.${format}`));
  if (meta !== undefined && (meta.id !== imageId || meta.format !== format)) return undefined;
  if (meta === undefined) return refuse('its meta.json is not there');
  if (file === undefined) return refuse(`its meta.json is there, but no image.${format}`);
  if (meta.size !== file.size) refuse(`it has ${file.size} bytes where its meta.json says ${meta.size}`);
  return { ...meta, allocated: await allocated(folder) };
}

/** Clones being made of each cached image in this process, by the image's folder; -1 while the image is being evicted. */
const holds = new Map<string, number>();

/** Keeps an image from being evicted while clones are made of it; BUSY where that is under way already. */
export function holdImage(pool: PoolRoot, imageId: string): Disposable {
  const folder = entryName(pool, 'cache', imageId);
  const before = holds.get(folder) ?? 0;
  if (before < 0) throw new CisternError('BUSY', `the image ${imageId} is being evicted from ${pool.root}`);
  holds.set(folder, before + 1);
  return {
    [Symbol.dispose]: () => {
      const left = (holds.get(folder) ?? 1) - 1;
      if (left === 0) holds.delete(folder);
      else holds.set(folder, left);
    },
  };
}

/**
 * Removes an image from the cache; nothing where it is gone already. IN_USE where a volume, or one in the trash, stands on it: the
 * controller knows that too and asks before; this is the second net, which sees what is really on the disk.
 */
export async function evict(pool: OpenPool, imageId: string): Promise<{ freed: number }> {
  const folder = entryName(pool, 'cache', imageId);
  const refuse = (by: string): never => {
    throw new CisternError('IN_USE', `evicting the image ${imageId} from ${pool.root}: ${by}`);
  };
  const held = holds.get(folder);
  if (held !== undefined) refuse(held < 0 ? 'it is being evicted already' : 'clones of it are being made');
  holds.set(folder, -1);
  try {
    await finishRemovals(pool, 'image');
    await sweepFills(pool, [imageId]);
    using held = await holdEntry(entryPath(pool, 'cache', imageId));
    if (held === undefined) return { freed: 0 };
    for (const area of ['volumes', 'trash'] as const) {
      const users = await standingOn(pool, area, imageId);
      if (users.length > 0) refuse(`${users.length} in ${area} stand on it, such as ${users[0]}`);
    }
    const freed = await allocated(held.path);
    for (const format of ImageFormat.options) unsee(cacheFile(pool, imageId, format).path);
    await discard(pool, entryPath(pool, 'cache', imageId), 'image', imageId);
    await syncRemovals(pool, 'cache');
    await keepReserve(pool);
    return { freed };
  } finally {
    holds.delete(folder);
  }
}

/** Ids in an area that stand on an image. One whose base cannot be told might, so it counts: it stops an eviction rather than lose its base. */
async function standingOn(pool: OpenPool, area: 'volumes' | 'trash', imageId: string): Promise<string[]> {
  const users = await eachEntry(pool, area, undefined, async (id, folder) => {
    const backing = await backingOf(folder);
    if (backing === undefined) return id;
    return backing?.imageId === imageId ? id : undefined;
  });
  return users.filter(id => id !== undefined);
}
