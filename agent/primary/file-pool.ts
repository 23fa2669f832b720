import { readdir, rm } from 'node:fs/promises';
import { CisternError } from '../../shared/errors.ts';
import type { Pool } from './driver.ts';
import { cached, cacheFile, evict } from './file-pool/cache.ts';
import { cacheSink } from './file-pool/cache-sink.ts';
import { capacity, checkStanding, disown, openRoot } from './file-pool/identity.ts';
import { AREAS, areaPath, poolError, type PoolRoot } from './file-pool/paths.ts';
import { openScratch, sweep } from './file-pool/scratch.ts';
import { discardTrash, purge, restore, trash } from './file-pool/trash.ts';
import { usage } from './file-pool/usage.ts';
import { createVolumes, resizeVolume, volumeFile } from './file-pool/volumes.ts';

export interface FilePoolOptions {
  /** The folder that is the pool, mounted already where it must be. */
  path: string;
  id: string;
  type: string;
  shared: boolean;
  initialize: boolean;
}

/**
 * A pool whose volumes are files below one folder: what `local` and `nfs` have in common.
 * Each call first asks whether the folder still is this pool, since somebody may unmount it, or mount another over it, at any time.
 */
export async function openFilePool(options: FilePoolOptions): Promise<Pool> {
  const { path, id, type, shared, initialize } = options;
  const { pool, initialized } = await openRoot(path, { id, type, shared }, initialize);
  const standing = async <T>(work: () => Promise<T>): Promise<T> => {
    await checkStanding(pool);
    return work();
  };
  return {
    initialized,
    capacity: () => standing(() => capacity(pool)),
    usage: signal => standing(() => usage(pool, signal)),
    scratch: taskId => standing(() => openScratch(pool, taskId, 'work')),
    cached: (imageId, format) => standing(() => cached(pool, imageId, format)),
    cacheSink: (taskId, image) => standing(() => cacheSink(pool, taskId, image)),
    cacheFile: (imageId, format) => cacheFile(pool, imageId, format),
    evict: imageId => standing(() => evict(pool, imageId)),
    createVolumes: (taskId, volumes, size, backing, signal, progress) =>
      standing(() => createVolumes(pool, taskId, { volumes, size, backing }, signal, progress)),
    volumeFile: (volumeId, layerId) => standing(() => volumeFile(pool, volumeId, layerId)),
    resizeVolume: (volumeId, layerId, size, signal) => standing(() => resizeVolume(pool, volumeId, layerId, size, signal)),
    trash: (volumeIds, signal) => standing(() => trash(pool, volumeIds, signal)),
    restore: volumeIds => standing(() => restore(pool, volumeIds)),
    discard: volumeIds => standing(() => discardTrash(pool, volumeIds)),
    purge: (volumeIds, before, signal) => standing(() => purge(pool, volumeIds, before, signal)),
    sweep: taskIds => standing(() => sweep(pool, taskIds)),
    forget: () => standing(() => forget(pool)),
  };
}

/** Makes the folder an ordinary, empty one again. IN_USE where volumes are left; cached images and the trash go. */
async function forget(pool: PoolRoot): Promise<void> {
  try {
    const volumes = await readdir(areaPath(pool, 'volumes'));
    if (volumes.length > 0)
      throw new CisternError(
        'IN_USE',
        `giving up the pool ${pool.root}: ${volumes.length} volumes are left in it, such as ${volumes[0]}`,
      );
    // pool.json goes last: a pool that lost only a part of its folders is still known as this pool
    for (const area of AREAS) await rm(areaPath(pool, area), { recursive: true, force: true });
    await disown(pool);
  } catch (error) {
    throw poolError(error, `giving up the pool ${pool.root}`);
  }
}
