import type { CommandOutput } from '../../shared/commands/index.ts';
import type { NewImageRef, StoreRef } from '../../shared/commands/refs.ts';
import { CisternError } from '../../shared/errors.ts';
import type { BackupStore } from '../backup/driver.ts';
import { publishImage, removeImage } from '../backup/layout.ts';
import { throwIfAborted } from '../host/run.ts';
import { fileSource } from '../transfer/file-end.ts';
import type { TaskContext } from './handler.ts';

type Published = CommandOutput<'volume.upload'>;

/** Publishes a file as an image on all of the stores, or on none: what is published already goes again when a later store fails. */
export async function publishToAll(
  path: string,
  image: NewImageRef & { virtualSize: number },
  refs: StoreRef[],
  ctx: TaskContext,
): Promise<Published> {
  const source = await fileSource(path, { name: `image ${image.id}` });
  const done: BackupStore[] = [];
  const transfers: Published['transfers'] = [];
  let result: Omit<Published, 'transfers'> | undefined;
  try {
    for (const [i, ref] of refs.entries()) {
      const store = await ctx.store(ref);
      const { manifest, summary } = await publishImage(store, image, source, {
        streams: ctx.config.streams,
        stallSeconds: ctx.config.stallSeconds,
        signal: ctx.signal,
        progress: (moved, total) => ctx.progress('publish', i * total + moved, refs.length * total, 'bytes'),
      });
      done.push(store);
      transfers.push({ storeId: ref.id, summary });
      result = { size: manifest.size, virtualSize: manifest.virtualSize, digest: manifest.digest };
    }
    throwIfAborted(ctx.signal);
  } catch (error) {
    throw await undo(done, image.id, error);
  }
  if (result === undefined) throw new CisternError('BAD_REQUEST', `publishing image ${image.id}: no backup storage was named`);
  return { ...result, transfers };
}

/** Removes what was published; the error to throw tells also what could not be removed. */
async function undo(stores: BackupStore[], imageId: string, first: unknown): Promise<unknown> {
  const removed = await Promise.allSettled(stores.map(store => removeImage(store, imageId)));
  const left = removed.filter(outcome => outcome.status === 'rejected').map(outcome => String(outcome.reason));
  if (left.length === 0) return first;
  const [code, told] = first instanceof CisternError ? [first.code, first.message] : (['INTERNAL', String(first)] as const);
  return new CisternError(code, `${told}; removing the copies made before failed too: ${left.join('; ')}`, { cause: first });
}
