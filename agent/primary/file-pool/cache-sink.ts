import { chmod, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { inspectCopy } from '../../host/inspect-copy.ts';
import type { Sink } from '../../transfer/ends.ts';
import { fileSink } from '../../transfer/file-end.ts';
import type { CachedImage } from '../driver.ts';
import { cached } from './cache.ts';
import { type CacheMeta, createFile, metaPath, syncPath, toMeta } from './meta.ts';
import { openPool } from './identity.ts';
import { areaPath, entryName, entryPath, type OpenPool, poolError } from './paths.ts';
import { openScratch } from './scratch.ts';

/**
 * Where an image arrives for the cache: in `tmp/<taskId>/`, then, whole, durable, judged by its header, read-only and with its
 * meta.json beside it, under `cache/<imageId>/` by one rename. Where another host was first (a shared pool), its copy stays and this one goes.
 */
export async function cacheSink(opened: OpenPool, taskId: string, image: CachedImage): Promise<Sink> {
  const target = entryName(opened, 'cache', image.id);
  const scratch = await openScratch(opened, taskId, `cache-${image.id}`);
  const remove = async (): Promise<void> => scratch[Symbol.asyncDispose]();
  const file = join(scratch.path, `image.${image.format}`);
  const name = `pool ${opened.id}:cache/${image.id}`;
  const inner = await fileSink({
    partial: `${file}.part`,
    final: file,
    size: image.size,
    mode: 0o444,
    name,
    codes: { full: 'POOL_FULL' },
  }).catch(async (error: unknown) => {
    await remove();
    throw error;
  });
  const publish = async (): Promise<void> => {
    // the image took its time to arrive: the pool is opened anew
    using pool = await openPool(opened.base);
    await inner.publish();
    await inspectCopy(file, image);
    const meta: CacheMeta = { version: 1, ...image, createdAt: new Date().toISOString() };
    await createFile(metaPath(scratch.path), toMeta(meta), 0o444);
    await chmod(scratch.path, 0o755);
    await syncPath(scratch.path);
    await rename(scratch.name, entryPath(pool, 'cache', image.id)).catch(async (error: NodeJS.ErrnoException) => {
      const taken = error.code === 'ENOTEMPTY' || error.code === 'EEXIST';
      if (!taken || (await cached(pool, image.id, image.format)) === undefined) throw error;
    });
    await syncPath(areaPath(pool, 'cache'));
  };
  return {
    ...inner,
    publish: async () => {
      try {
        await publish();
      } catch (error) {
        throw poolError(error, `publishing the image in ${target}`);
      } finally {
        await remove();
      }
    },
    abort: remove,
  };
}
