import { fetchImage } from '../backup/layout.ts';
import { refuseOther } from '../image-cache.ts';
import { nowhere } from '../transfer/nowhere.ts';
import type { Handler } from './handler.ts';

/** Reads what a download would read. DIGEST_MISMATCH, MANIFEST_INVALID or OBJECT_MISSING where a download would fail so. */
export const verifyReplica: Handler<'image.verify'> = async ({ store, image, digest }, ctx) => {
  const { manifest } = await fetchImage(
    await ctx.store(store),
    image.id,
    async found => {
      refuseOther({ ...image, digest }, found, store.id);
      return nowhere();
    },
    {
      streams: ctx.config.streams,
      stallSeconds: ctx.config.stallSeconds,
      signal: ctx.signal,
      progress: (done, total) => ctx.progress('verify', done, total, 'bytes'),
    },
  );
  return { parts: manifest.parts.length, bytes: manifest.size };
};
