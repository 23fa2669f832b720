import { newId } from '../../shared/id.ts';
import { CisternError } from '../../shared/errors.ts';
import type { Reader, Trx } from '../db/database.ts';
import { findPrimaryStorage } from '../db/find.ts';
import { markPool } from '../fleet/connect.ts';
import { poolRef, storeRef } from '../fleet/refs.ts';
import type { Services } from '../services.ts';
import { isOfStore, markStore } from '../workflows/backup-storage.ts';
import type { PoolKey } from './capacity.ts';
import { adopt, forgetPurged } from './adopt.ts';
import { anyHost, workers } from './placement.ts';

/** Measuring a pool of many volumes may take a while; past this it is given up. */
const MEASURE_SECONDS = 300;
/** What says that a pool is not there, and not only that it could not be measured. */
const AWAY: ReadonlySet<string> = new Set(['POOL_UNAVAILABLE', 'POOL_IO_ERROR', 'POOL_IDENTITY', 'MOUNT_FAILED']);

/** Measures a primary storage on one host (or each host of a local one) and notes free space and what each volume and image takes. */
export async function measurePool(services: Services, storageId: string, signal: AbortSignal): Promise<void> {
  const storage = await findPrimaryStorage(services.db.read, storageId);
  const hosts = await workers(services.db.read, services.fleet, storageId);
  for (const hostId of storage.shared ? hosts.slice(0, 1) : hosts) {
    const bounded = AbortSignal.any([signal, AbortSignal.timeout(MEASURE_SECONDS * 1000)]);
    const part = { storageId, hostId: storage.shared ? '' : hostId };
    try {
      const began = services.db.elapsed();
      const before = await cachedBefore(services.db.read, part);
      const usage = await services.fleet.run(
        hostId,
        newId(),
        { kind: 'pool.usage', input: { pool: await poolRef(services, storageId) } },
        { signal: bounded, patienceSeconds: 0 },
      );
      await services.db.write(async trx => {
        await markPool(trx, services, storageId, hostId, usage.capacity, null);
        for (const { id, allocated } of [...usage.volumes, ...usage.trash])
          await trx
            .updateTable('volumes')
            .set({ allocated })
            .where('id', '=', id)
            .where('primary_storage_id', '=', storageId)
            .execute();
        for (const { imageId, allocated } of usage.cache)
          await cachedImages(trx, part).set({ size: allocated }).where('image_id', '=', imageId).execute();
        // what was there before and is not there now was removed by somebody else; the next volume that wants it fetches it again
        const seen = new Set(usage.cache.map(entry => entry.imageId));
        for (const { image_id, last_used_at } of before)
          if (!seen.has(image_id))
            await trx
              .deleteFrom('cache_entries')
              .where('image_id', '=', image_id)
              .where('primary_storage_id', '=', part.storageId)
              .where('host_id', '=', part.hostId)
              .where('status', 'in', ['ready', 'damaged'])
              .where('last_used_at', '=', last_used_at)
              .execute();
        for (const { imageId, allocated } of usage.cache) await adopt(trx, part, imageId, allocated, began);
        await forgetPurged(trx, part, new Set([...usage.volumes, ...usage.trash].map(found => found.id)), began);
      });
    } catch (error) {
      if (signal.aborted) throw error;
      services.log.warn({ err: error, storage: storage.name, hostId }, 'a primary storage could not be measured');
      const away = bounded.aborted
        ? `measuring took longer than ${MEASURE_SECONDS} s: the storage does not answer`
        : error instanceof CisternError && AWAY.has(error.code) && error.message;
      if (away) await services.db.write(trx => markPool(trx, services, storageId, hostId, null, away));
    }
  }
}

/** Entries that a measurement should find; the time of their last use tells whether somebody had to do with one meanwhile. */
const cachedBefore = (db: Reader, pool: PoolKey) =>
  db
    .selectFrom('cache_entries')
    .select(['image_id', 'last_used_at'])
    .where('primary_storage_id', '=', pool.storageId)
    .where('host_id', '=', pool.hostId)
    .where('status', 'in', ['ready', 'damaged'])
    .execute();

const cachedImages = (trx: Trx, pool: PoolKey) =>
  trx
    .updateTable('cache_entries')
    .where('primary_storage_id', '=', pool.storageId)
    .where('host_id', '=', pool.hostId)
    .where('status', '=', 'ready');

/** Checks every enabled backup storage from some host and notes its capacity, or why it cannot be used. */
export async function measureStores(services: Services, signal: AbortSignal): Promise<void> {
  const stores = await services.db.read
    .selectFrom('backup_storages')
    .select(['id', 'name'])
    .where('state', '=', 'enabled')
    .where('status', '<>', 'connecting')
    .execute();
  for (const store of stores) {
    signal.throwIfAborted();
    const bounded = AbortSignal.any([signal, AbortSignal.timeout(60_000)]);
    try {
      const host = await anyHost(services.db.read, services.fleet);
      const out = await services.fleet.run(
        host.id,
        newId(),
        { kind: 'store.connect', input: { store: await storeRef(services, store.id) } },
        { signal: bounded, patienceSeconds: 0 },
      );
      await services.db.write(trx => markStore(trx, store.id, out));
    } catch (error) {
      if (signal.aborted) throw error;
      services.log.warn({ err: error, store: store.name }, 'a backup storage could not be checked');
      if (isOfStore(error)) await services.db.write(trx => markStore(trx, store.id, error));
    }
  }
}
