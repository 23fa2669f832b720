import { CisternError } from '../../shared/errors.ts';
import type { Trx } from '../db/database.ts';
import { findHost, findImage, findPrimaryStorage } from '../db/find.ts';
import type { Row } from '../db/schema.ts';
import type { Workflow } from '../operations/workflow.ts';
import { demandRoom, type PoolKey } from '../policy/capacity.ts';
import { cacheStatus, workers } from '../policy/placement.ts';
import type { Services } from '../services.ts';
import { poolRef } from '../fleet/refs.ts';
import { adjustAvailable, cacheLock, claimCacheRoom, ensureCached, forgetUnmade } from './cache-entry.ts';
import { type CacheRequest, type Part, partOf, poolsHolding } from './cache-parts.ts';
import { whereEntry } from './cache-rows.ts';
import { soundOrDamaged } from './damage.ts';

interface Plan {
  imageId: string;
  pools: Part[];
}

/** The pools that a cache request means: the shared one, or the parts of the named host or of all connected hosts. */
async function poolsOf(
  trx: Trx,
  services: Services,
  storage: Row<'primary_storages'>,
  host: string | undefined,
): Promise<PoolKey[]> {
  if (storage.shared) return [{ storageId: storage.id, hostId: '' }];
  if (host !== undefined) return [{ storageId: storage.id, hostId: (await findHost(trx, host)).id }];
  const all = await workers(trx, services.fleet, storage.id);
  if (all.length === 0) throw new CisternError('NO_HOST', `no connected and enabled host sees primary storage ${storage.name}`);
  // always in one order: two operations that take the locks of the same pools must not wait for each other
  return all.toSorted().map(hostId => ({ storageId: storage.id, hostId }));
}

/** Prefetches an image into the cache of a pool, or of every part of a local one. */
export const addToCache: Workflow<CacheRequest, Plan> = {
  kind: 'cache.add',
  async accept(trx, request, operationId, services) {
    const image = await findImage(trx, request.image);
    if (image.status !== 'ready') throw new CisternError('WRONG_STATE', `image ${image.name} is ${image.status}`);
    const storage = await findPrimaryStorage(trx, request.primaryStorage);
    if (storage.state !== 'enabled')
      throw new CisternError('WRONG_STATE', `primary storage ${storage.name} is in state ${storage.state}`);
    const pools: Plan['pools'] = [];
    for (const pool of await poolsOf(trx, services, storage, request.host)) {
      pools.push(await partOf(trx, services, pool));
      const status = await cacheStatus(trx, image.id, pool);
      if (status === 'ready') continue;
      if (status !== 'creating')
        await demandRoom(trx, storage, pool.hostId, { virtual: 0, physical: image.size ?? 0 }, services.config.physicalThreshold);
      await claimCacheRoom(trx, operationId, pool, image);
    }
    return {
      plan: { imageId: image.id, pools },
      resources: [
        { kind: 'image', id: image.id },
        { kind: 'primary-storage', id: storage.id },
      ],
    };
  },
  async run(op, plan) {
    for (const pool of plan.pools) forgetUnmade(op, plan.imageId, pool, pool.label);
    for (const pool of plan.pools) await ensureCached(op, plan.imageId, pool, pool.workerHostId, pool.label);
    op.finish({ imageId: plan.imageId, pools: plan.pools.length });
  },
};

async function keep(trx: Trx, pool: PoolKey, imageId: string): Promise<void> {
  const entry = whereEntry(trx.updateTable('cache_entries').set({ status: soundOrDamaged }), pool, imageId);
  await entry.where('status', '=', 'deleting').execute();
}

/** Some of the volumes that stand on a cached image, those in the trash included. */
const standingOn = (trx: Trx, pool: PoolKey, imageId: string): Promise<Pick<Row<'volumes'>, 'name' | 'status'>[]> =>
  whereEntry(trx.selectFrom('volumes').select(['name', 'status']), pool, imageId)
    .limit(4)
    .execute();

/** Removes an image from a cache. Never where a volume stands on it, one in the trash included; it stays where it is wanted again meanwhile. */
export const evictFromCache: Workflow<CacheRequest, Plan> = {
  kind: 'cache.evict',
  async accept(trx, request, _operationId, services) {
    const image = await findImage(trx, request.image);
    const storage = await findPrimaryStorage(trx, request.primaryStorage);
    const pools: Plan['pools'] = [];
    for (const pool of await poolsHolding(trx, image, storage, request.host)) {
      const standing = await standingOn(trx, pool, image.id);
      if (standing.length > 0)
        throw new CisternError(
          'IN_USE',
          `volumes stand on image ${image.name} in ${storage.name}: ${standing
            .slice(0, 3)
            .map(row => `${row.name}${row.status === 'deleted' ? ' (in the trash)' : ''}`)
            .join(', ')}${standing.length > 3 ? ', ...' : ''}`,
        );
      await whereEntry(trx.updateTable('cache_entries').set({ status: 'deleting' }), pool, image.id).execute();
      pools.push(await partOf(trx, services, pool));
    }
    return {
      plan: { imageId: image.id, pools },
      resources: [
        { kind: 'image', id: image.id },
        { kind: 'primary-storage', id: storage.id },
      ],
    };
  },
  async run(op, plan) {
    const { db } = op.services;
    let freed = 0;
    for (const pool of plan.pools)
      op.undo(`keep the cache entry${pool.label}`, () => db.write(trx => keep(trx, pool, plan.imageId)));
    for (const pool of plan.pools) {
      const { label } = pool;
      await op.lock(cacheLock(pool, plan.imageId));
      // until the lock was had, others may have asked for the image again, and have fetched it or count on finding it
      const goes = await op.tx(`look who wants the image${label}`, async trx => {
        const wanted = (await standingOn(trx, pool, plan.imageId)).length > 0;
        const entry = await whereEntry(trx.selectFrom('cache_entries').select('status'), pool, plan.imageId).executeTakeFirst();
        if (wanted) await keep(trx, pool, plan.imageId);
        return entry?.status === 'deleting' && !wanted;
      });
      if (!goes) continue;
      const out = await op.task(`evict${label}`, pool.workerHostId, 'cache.evict', async () => ({
        pool: await poolRef(op.services, pool.storageId),
        imageId: plan.imageId,
      }));
      await op.tx(`forget the cache entry${label}`, async trx => {
        await whereEntry(trx.deleteFrom('cache_entries'), pool, plan.imageId).where('status', '=', 'deleting').execute();
        await adjustAvailable(trx, pool, out.freed);
      });
      freed += out.freed;
    }
    op.finish({ imageId: plan.imageId, freed });
  },
};
