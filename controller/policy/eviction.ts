import { CisternError } from '../../shared/errors.ts';
import type { Engine } from '../operations/engine.ts';
import type { Services } from '../services.ts';
import { evictFromCache } from '../workflows/cache.ts';
import { lastMeasured } from './capacity.ts';

/**
 * Evicts cached images that no volume stands on: those of deleted images always, others least recently used first where a pool is
 * physically used above the high watermark, until it would be below the low one.
 */
export async function evictUnderPressure(services: Services, engine: Engine): Promise<void> {
  const { db, config, log } = services;
  const idle = await db.read
    .selectFrom('cache_entries as c')
    .innerJoin('images as i', 'i.id', 'c.image_id')
    .innerJoin('primary_storages as p', 'p.id', 'c.primary_storage_id')
    .select(['c.image_id', 'c.primary_storage_id', 'c.host_id', 'c.size', 'i.status as image_status', 'p.name as storage'])
    .where('c.status', '=', 'ready')
    .where(e =>
      e.not(
        e.exists(
          e
            .selectFrom('volumes as v')
            .select('v.id')
            .whereRef('v.image_id', '=', 'c.image_id')
            .whereRef('v.primary_storage_id', '=', 'c.primary_storage_id')
            .whereRef('v.host_id', '=', 'c.host_id'),
        ),
      ),
    )
    .orderBy('c.last_used_at')
    .execute();
  for (const [, entries] of Map.groupBy(idle, entry => `${entry.primary_storage_id}/${entry.host_id}`)) {
    const { primary_storage_id, host_id } = entries[0]!;
    const measured = await lastMeasured(db.read, { storageId: primary_storage_id, hostId: host_id });
    if (!measured) continue;
    let used = measured.total - measured.available;
    const pressed = used > measured.total * config.cacheHighWatermark;
    for (const entry of entries) {
      const goes = entry.image_status === 'deleted' || (pressed && used > measured.total * config.cacheLowWatermark);
      if (!goes) continue;
      try {
        const request = { image: entry.image_id, primaryStorage: primary_storage_id, ...(host_id !== '' && { host: host_id }) };
        await engine.start(evictFromCache, request, { shown: request });
        used -= entry.size ?? 0;
      } catch (error) {
        // a volume came to stand on it meanwhile, or its host is away: it stays
        if (!(error instanceof CisternError)) throw error;
        log.info({ err: error, image: entry.image_id, storage: entry.storage }, 'a cached image was not evicted');
      }
    }
  }
}
