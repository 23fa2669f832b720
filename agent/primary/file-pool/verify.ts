import { join } from 'node:path';
import { CisternError } from '../../../shared/errors.ts';
import type { ImageFormat } from '../../../shared/model.ts';
import { fileSource } from '../../transfer/file-end.ts';
import { nowhere } from '../../transfer/nowhere.ts';
import { partRange } from '../../transfer/parts.ts';
import { transfer } from '../../transfer/transfer.ts';
import type { Verification } from '../driver.ts';
import { inTurn } from '../in-turn.ts';
import { cacheFile, cached } from './cache.ts';
import { readParts } from './parts.ts';
import { entryPath, holdEntry, type OpenPool, poolError } from './paths.ts';
import { forget, type HeldImage, isAsVerified, remember, stampOf } from './stamp.ts';

const STREAMS = 2;
const STALL_SECONDS = 60;

/**
 * Sees to it that a cached image holds the bytes of its manifest: by a glance where nobody has written to it since it was last read, else, and
 * always with `full`, by reading all of it. CACHE_DAMAGED names the first part that is wrong; NOT_FOUND where the image is not there.
 */
export async function verifyImage(
  pool: OpenPool,
  imageId: string,
  format: ImageFormat,
  options: Verification,
): Promise<{ parts: number; read: number }> {
  const { path } = cacheFile(pool, imageId, format);
  return inTurn(`verify ${path}`, async () => {
    using folder = await holdEntry(entryPath(pool, 'cache', imageId));
    const meta = await cached(pool, imageId, format);
    if (meta === undefined || folder === undefined)
      throw new CisternError('NOT_FOUND', `the image ${imageId} (${format}) is not in the cache of ${pool.root}`);
    const image = { name: path, path: join(folder.path, `image.${format}`), shared: pool.shared };
    try {
      if (!options.full && (await isAsVerified(image))) return { parts: 0, read: 0 };
      const { partSize, parts } = await readParts(folder.path, meta);
      const stamp = await stampOf(image);
      const found = await read(image, partSize, options);
      const wrong = parts.flatMap((part, i) => (part === found[i] ? [] : [i]));
      if (wrong.length === 0) {
        await remember(image, stamp);
        return { parts: parts.length, read: meta.size };
      }
      const first = wrong[0]!;
      const { offset, length } = partRange(first, meta.size, partSize);
      throw new CisternError(
        'CACHE_DAMAGED',
        `verifying ${path}: part ${first} (${length} bytes at ${offset}) is ${found[first]}, its manifest says ${parts[first]}; ${wrong.length} of ${parts.length} parts are damaged`,
      );
    } catch (error) {
      if (error instanceof CisternError && error.code === 'CACHE_DAMAGED') await forget(image).catch(() => undefined);
      throw poolError(error, `verifying ${path}`);
    }
  });
}

/** The digests of all parts, those of zeros too, past the page cache where that can be: what the disk holds is asked. */
async function read(
  { name, path }: HeldImage,
  partSize: number,
  { signal, bytesPerSecond, progress }: Verification,
): Promise<string[]> {
  try {
    const source = await fileSource(path, { name, direct: true });
    const rate = bytesPerSecond ? bytesPerSecond / STREAMS : null;
    const { parts } = await transfer({
      source,
      sink: nowhere(rate),
      partSize,
      streams: STREAMS,
      stallSeconds: STALL_SECONDS,
      signal,
      progress,
    });
    return parts;
  } catch (cause) {
    if (cause instanceof CisternError && cause.code === 'IO_ERROR')
      throw new CisternError('CACHE_DAMAGED', `verifying ${name}: ${cause.message}`, { cause });
    throw cause;
  }
}
