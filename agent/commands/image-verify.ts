import { CisternError } from '../../shared/errors.ts';
import { fetchImage, type Moved } from '../backup/layout.ts';
import { refuseOther } from '../image-cache.ts';
import { nowhere } from '../transfer/nowhere.ts';
import type { PartDigest } from '../transfer/parts.ts';
import type { Handler } from './handler.ts';

/**
 * Reads what a download would read. DIGEST_MISMATCH with the first part that is not right, MANIFEST_INVALID or OBJECT_MISSING where a
 * download would fail so.
 */
export const verifyReplica: Handler<'image.verify'> = async ({ store: ref, image, digest }, ctx) => {
  const store = await ctx.store(ref);
  const sound = new Map<number, PartDigest>();
  const read = (streams: number): Promise<Moved> =>
    fetchImage(
      store,
      image.id,
      async found => {
        refuseOther({ ...image, digest }, found, ref.id);
        return { ...nowhere(), kept: new Map(sound), arrived: (part, as) => void sound.set(part, as) };
      },
      {
        streams,
        stallSeconds: ctx.config.stallSeconds,
        signal: ctx.signal,
        progress: (done, total) => ctx.progress('verify', done, total, 'bytes'),
      },
    );
  const { manifest } = await read(ctx.config.streams).catch((error: unknown) => {
    if (!(error instanceof CisternError && error.code === 'DIGEST_MISMATCH')) throw error;
    return read(1); // side by side a later part may have been seen first; what was right is not read again
  });
  return { parts: manifest.parts.length, bytes: manifest.size };
};
