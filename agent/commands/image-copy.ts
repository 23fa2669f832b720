import { CisternError, type ErrorCode, type ReplicaFault, toProblem } from '../../shared/errors.ts';
import { copyImage } from '../backup/layout.ts';
import { throwIfAborted } from '../host/run.ts';
import { allFailed, isCancel, refuseOther } from '../image-cache.ts';
import type { Handler } from './handler.ts';

/** What only the destination can have: another replica would meet it as well. */
const OF_DESTINATION: readonly ErrorCode[] = ['STORE_FULL', 'STORE_LIMIT'];

/** Copies from the first of the replicas that is good. DIGEST_MISMATCH and the like where none is. */
export const copyReplica: Handler<'image.copy'> = async ({ image, from, to }, ctx) => {
  const destination = await ctx.store(to);
  const faults: ReplicaFault[] = [];
  let first: unknown;
  for (const ref of from) {
    try {
      const { summary } = await copyImage(
        await ctx.store(ref),
        destination,
        image,
        manifest => refuseOther(image, manifest, ref.id),
        {
          streams: ctx.config.streams,
          stallSeconds: ctx.config.stallSeconds,
          signal: ctx.signal,
          progress: (done, total) => ctx.progress('replicate', done, total, 'bytes'),
        },
      );
      return { storeId: ref.id, faults, transfer: summary };
    } catch (error) {
      throwIfAborted(ctx.signal);
      if (error instanceof CisternError && (OF_DESTINATION.includes(error.code) || isCancel(error))) throw error;
      first ??= error;
      const { code, detail } = toProblem(error);
      faults.push({ storeId: ref.id, code, detail });
    }
  }
  throw allFailed(image, faults, first);
};
