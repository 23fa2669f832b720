import { chmod, readdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { CisternError } from '../../../shared/errors.ts';
import { inspectCopy } from '../../host/inspect-copy.ts';
import type { Sink } from '../../transfer/ends.ts';
import { fileSink } from '../../transfer/file-end.ts';
import type { CachedImage } from '../driver.ts';
import { cached, cacheFile } from './cache.ts';
import { type CacheMeta, createFile, metaPath, syncPath, toMeta } from './meta.ts';
import { openPool } from './identity.ts';
import { areaPath, entryName, entryPath, holdEntry, type OpenPool, poolError } from './paths.ts';
import { writeParts } from './parts.ts';
import { openFill } from './fill.ts';
import { remember, stampOf } from './stamp.ts';
import { verifyImage } from './verify.ts';

/**
 * Where an image arrives for the cache: in `tmp/fill-<imageId>/`, which outlives the task, so that the next one goes on where it was cut
 * short; then, whole, durable, judged by its header, read-only and with its meta.json beside it, under
 * `cache/<imageId>/` by one rename. Where another host was first (a shared pool), its copy stays and this one goes; where what lies there is
 * damaged, this one takes its place: clones go on standing on the same name, and the same bytes as they should be.
 */
export async function cacheSink(opened: OpenPool, image: CachedImage): Promise<Sink> {
  const target = entryName(opened, 'cache', image.id);
  const scratch = await openFill(opened, image.id);
  const remove = async (): Promise<void> => scratch[Symbol.asyncDispose]();
  const file = join(scratch.path, `image.${image.format}`);
  const name = `pool ${opened.id}:cache/${image.id}`;
  const inner = await fileSink({
    partial: `${file}.part`,
    final: file,
    size: image.size,
    mode: 0o444,
    name,
    codes: { full: 'POOL_FULL', broken: 'POOL_IO_ERROR' },
    resume: { partSize: image.partSize, tag: image.digest },
  }).catch(async (error: unknown) => {
    await remove();
    throw error;
  });
  const publish = async (): Promise<void> => {
    // the image took its time to arrive: the pool is opened anew
    using pool = await openPool(opened.base);
    try {
      await inner.publish(image.parts);
    } catch (error) {
      if (await isSound(pool, image)) return; // another host, going on with the same files, was first
      throw error;
    }
    await inspectCopy(file, image);
    const { parts, partSize, ...described } = image;
    const meta: CacheMeta = { version: 1, ...described, createdAt: new Date().toISOString() };
    await writeParts(scratch.path, { partSize, parts });
    await createFile(metaPath(scratch.path), toMeta(meta), 0o444);
    await chmod(scratch.path, 0o755);
    await syncPath(scratch.path);
    const place = entryPath(pool, 'cache', image.id);
    await rename(scratch.name, place).catch(async (error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error;
      if (await isSound(pool, image)) return;
      using there = await holdEntry(place);
      if (there === undefined) throw error;
      for (const name of await readdir(scratch.path)) await rename(join(scratch.path, name), join(there.path, name));
      await syncPath(there.path);
    });
    await syncPath(areaPath(pool, 'cache'));
    await rememberPublished(pool, image);
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
    abort: () => inner.abort().finally(remove),
    park: async () => {
      await inner.park!();
      if ((await readdir(scratch.path)).length > 0) scratch.keep();
      else await remove();
    },
  };
}

/** Whether an image that lies in the cache already is the one that was fetched, from its first to its last byte. */
async function isSound(pool: OpenPool, image: CachedImage): Promise<boolean> {
  try {
    const there = await cached(pool, image.id, image.format);
    if (there?.digest !== image.digest) return false;
    await verifyImage(pool, image.id, image.format, { signal: NEVER });
    return true;
  } catch (error) {
    if (error instanceof CisternError && error.code === 'CACHE_DAMAGED') return false;
    throw error;
  }
}

/** What has arrived whole is published, also when a cancel comes now. */
const NEVER = new AbortController().signal;

/** Every part of it was verified as it arrived. */
async function rememberPublished(pool: OpenPool, { id, format }: CachedImage): Promise<void> {
  using folder = await holdEntry(entryPath(pool, 'cache', id));
  if (folder === undefined) return;
  const image = { name: cacheFile(pool, id, format).path, path: join(folder.path, `image.${format}`), shared: pool.shared };
  await remember(image, await stampOf(image));
}
