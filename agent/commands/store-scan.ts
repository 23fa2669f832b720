import type { FoundImage } from '../../shared/commands/store.ts';
import { CisternError } from '../../shared/errors.ts';
import { listImages, readManifest } from '../backup/layout.ts';
import type { Handler } from './handler.ts';

/** Reads every manifest, one after the other. */
export const scanStore: Handler<'store.scan'> = async ({ store: ref }, ctx) => {
  const store = await ctx.store(ref);
  const ids = await listImages(store);
  const images: FoundImage[] = [];
  for (const id of ids) {
    ctx.signal.throwIfAborted();
    try {
      const { name, media, format, size, virtualSize, digest, createdAt } = await readManifest(store, id);
      images.push({
        id,
        manifest: { name, media, format, size, virtualSize, digest, createdAt },
        unfinished: false,
        problem: null,
      });
    } catch (error) {
      if (!(error instanceof CisternError && ['OBJECT_MISSING', 'MANIFEST_INVALID'].includes(error.code))) throw error;
      images.push({ id, manifest: null, unfinished: error.code === 'OBJECT_MISSING', problem: error.message });
    }
    ctx.progress('scan', images.length, ids.length, 'items');
  }
  return { images };
};
