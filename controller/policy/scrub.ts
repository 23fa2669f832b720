import { CisternError } from '../../shared/errors.ts';
import { isEnded } from '../operations/journal.ts';
import type { Engine } from '../operations/engine.ts';
import type { Services } from '../services.ts';
import { verifyCache } from '../workflows/verify.ts';

/** So much of a pool's bandwidth is taken, in bytes a second, and one image is read at a time: VMs come first. */
const RATE = 64 * 2 ** 20;
const ASK_SECONDS = 30;

/** Reads every cached image from end to end, those first that were not read for longest. */
export async function scrubCaches({ db, log }: Services, engine: Engine, signal: AbortSignal): Promise<void> {
  const entries = await db.read
    .selectFrom('cache_entries')
    .select(['image_id', 'primary_storage_id', 'host_id'])
    .where('status', '=', 'ready')
    .orderBy('verified_at')
    .execute();
  for (const { image_id: image, primary_storage_id: primaryStorage, host_id: host } of entries) {
    signal.throwIfAborted();
    try {
      const request = { image, primaryStorage, ...(host !== '' && { host }), bytesPerSecond: RATE };
      let operation = await engine.start(verifyCache, request, { shown: request });
      while (!isEnded(operation.state) && !signal.aborted) operation = await engine.wait(operation.id, ASK_SECONDS, signal);
    } catch (error) {
      // it was evicted meanwhile, or its host is away: the next round finds it
      if (!(error instanceof CisternError)) throw error;
      log.info({ err: error, image, primaryStorage }, 'a cached image was not verified');
    }
  }
}
