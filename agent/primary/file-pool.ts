import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { CisternError } from '../../shared/errors.ts';
import { removeTree } from '../host/held.ts';
import type { Pool } from './driver.ts';
import { cached, cacheFile, evict } from './file-pool/cache.ts';
import { cacheSink } from './file-pool/cache-sink.ts';
import { copyVolume, version } from './file-pool/copy.ts';
import { sweepFills } from './file-pool/fill.ts';
import { capacity, disown, openPool, openRoot } from './file-pool/identity.ts';
import { AREAS, areaPath, type OpenPool, poolError } from './file-pool/paths.ts';
import { scan } from './file-pool/scan.ts';
import { sweep, sweepAll } from './file-pool/scratch.ts';
import { discardTrash, purge, restore, trash } from './file-pool/trash.ts';
import { usage } from './file-pool/usage.ts';
import { verifyImage } from './file-pool/verify.ts';
import { createVolumes, resizeVolume, verifyBase, volumeFile } from './file-pool/volumes.ts';

/** A qcow2 layer of a volume (design: `volumes/<volumeId>/<layerId>.qcow2`). */
export const FILE_VOLUMES = { format: 'qcow2', path: 'volumes/{volume}/{layer}.qcow2' } as const;

export interface FilePoolOptions {
  /** The folder that is the pool, mounted already where it must be. */
  path: string;
  id: string;
  type: string;
  shared: boolean;
  initialize: boolean;
  /** How many folders of the path, from its end, have just been made. */
  made?: number;
}

/**
 * A pool whose volumes are files below one folder: what `local` and `nfs` have in common.
 * Each call first asks whether the folder still is this pool, since somebody may unmount it, or mount another over it, at any time, and
 * holds the pool's folders while it works, so that no link that somebody puts in the place of one leads it elsewhere.
 */
export async function openFilePool(options: FilePoolOptions): Promise<Pool> {
  const { path, id, type, shared, initialize, made } = options;
  const { pool, initialized } = await openRoot(path, { id, type, shared }, initialize, made);
  const standing = async <T>(work: (open: OpenPool) => Promise<T>): Promise<T> => {
    using open = await openPool(pool);
    try {
      return await work(open);
    } catch (error) {
      throw error instanceof CisternError ? poolError(error, `in the pool ${open.root}`) : error;
    }
  };
  return {
    initialized,
    capacity: () => standing(capacity),
    usage: signal =>
      standing(async open => {
        await sweepFills(open);
        return usage(open, signal);
      }),
    scan: (options, signal) => standing(open => scan(open, options, signal)),
    cached: (imageId, format) => standing(open => cached(open, imageId, format)),
    verifyImage: (imageId, format, verification) => standing(open => verifyImage(open, imageId, format, verification)),
    cacheSink: image => standing(open => cacheSink(open, image)),
    cacheName: (imageId, format) => cacheFile(pool, imageId, format).path,
    evict: imageId => standing(open => evict(open, imageId)),
    createVolumes: (taskId, volumes, size, backing, signal, progress) =>
      standing(open => createVolumes(open, taskId, { volumes, size, backing }, signal, progress)),
    volumeFile: (volumeId, layerId) => standing(open => volumeFile(open, volumeId, layerId)),
    verifyBase: (volumeId, signal) => standing(open => verifyBase(open, volumeId, signal)),
    resizeVolume: (volumeId, layerId, size, signal) => standing(open => resizeVolume(open, volumeId, layerId, size, signal)),
    version: (volumeId, layerId) => standing(open => version(open, volumeId, layerId)),
    copyVolume: (volume, source, backing, options) => standing(open => copyVolume(open, volume, source, backing, options)),
    trash: (volumeIds, signal) => standing(open => trash(open, volumeIds, signal)),
    restore: volumeIds => standing(open => restore(open, volumeIds)),
    discard: volumeIds =>
      standing(async open => {
        await discardTrash(open, volumeIds);
        await sweepFills(open, volumeIds);
      }),
    purge: (volumeIds, before, signal) => standing(open => purge(open, volumeIds, before, signal)),
    sweep: taskIds => standing(open => sweep(open, taskIds)),
    ...(shared ? {} : { sweepAll: () => standing(sweepAll) }),
    forget: () => standing(forget),
  };
}

/** Makes the folder an ordinary, empty one again, or removes it where it was made for the pool. IN_USE where volumes are left; cached images and the trash go. */
async function forget(pool: OpenPool): Promise<void> {
  try {
    const volumes = await readdir(areaPath(pool, 'volumes'));
    if (volumes.length > 0)
      throw new CisternError(
        'IN_USE',
        `giving up the pool ${pool.root}: ${volumes.length} volumes are left in it, such as ${volumes[0]}`,
      );
    // pool.json goes last: a pool that lost only a part of its folders is still known as this pool
    for (const area of AREAS) await removeTree(join(pool.root, area));
    await disown(pool);
  } catch (error) {
    throw poolError(error, `giving up the pool ${pool.root}`);
  }
}
