import { CisternError } from '../../shared/errors.ts';
import type { Trx } from '../db/database.ts';
import { findHost, findImage, findPrimaryStorage } from '../db/find.ts';
import type { Row } from '../db/schema.ts';
import type { Run, Workflow } from '../operations/workflow.ts';
import { demandRoom, type PoolKey, reserve } from '../policy/capacity.ts';
import { isCached, workerFor, workers } from '../policy/placement.ts';
import type { Services } from '../services.ts';
import { poolRef, storeRef } from '../fleet/refs.ts';

export const cacheLock = (pool: PoolKey, imageId: string): string =>
  `cache/${pool.storageId}${pool.hostId && `/${pool.hostId}`}/${imageId}`;

const at = (pool: PoolKey, imageId: string) => ({ image_id: imageId, primary_storage_id: pool.storageId, host_id: pool.hostId });

/** In the transaction that accepts an operation: promises room for an image that is neither cached nor on its way. */
export async function claimCacheRoom(trx: Trx, operationId: string, pool: PoolKey, image: Row<'images'>): Promise<void> {
  const now = new Date().toISOString();
  const made = await trx
    .insertInto('cache_entries')
    .values({ ...at(pool, image.id), status: 'creating', size: null, last_used_at: now, created_at: now })
    .onConflict(c => c.doNothing())
    .executeTakeFirst();
  if ((made.numInsertedOrUpdatedRows ?? 0n) > 0n) await reserve(trx, operationId, pool, image.size ?? 0);
}

/**
 * Makes sure that an image is in a pool's cache. However many operations want it at once, one of them fetches it, under the lock of
 * this pool and image, and the others find it there.
 */
export async function ensureCached(op: Run, imageId: string, pool: PoolKey, workerHostId: string, label = ''): Promise<void> {
  const { services } = op;
  op.undo(`forget the cache entry that was not made${label}`, async () => {
    await services.db.write(async trx => {
      // another operation that holds the lock is filling this very entry: it is that one's now
      const holder = await trx
        .selectFrom('locks')
        .select('operation_id')
        .where('name', '=', cacheLock(pool, imageId))
        .executeTakeFirst();
      if (holder && holder.operation_id !== op.id) return;
      await whereEntry(trx.deleteFrom('cache_entries'), pool, imageId).where('status', '=', 'creating').execute();
    });
  });
  await op.lock(cacheLock(pool, imageId));
  const ready = await op.tx(`look in the image cache${label}`, async trx => {
    if (await isCached(trx, imageId, pool)) return true;
    const now = new Date().toISOString();
    await trx
      .insertInto('cache_entries')
      .values({ ...at(pool, imageId), status: 'creating', size: null, last_used_at: now, created_at: now })
      .onConflict(c => c.columns(['image_id', 'primary_storage_id', 'host_id']).doUpdateSet({ status: 'creating' }))
      .execute();
    return false;
  });
  if (ready) return;
  const filled = await op.task(`fill the image cache${label}`, workerHostId, 'cache.fill', async () => {
    const image = await findImage(services.db.read, imageId);
    const replicas = await services.db.read
      .selectFrom('replicas')
      .innerJoin('backup_storages', 'backup_storages.id', 'replicas.backup_storage_id')
      .select(['backup_storages.id', 'backup_storages.name'])
      .where('image_id', '=', imageId)
      .where('replicas.status', '=', 'ready')
      .where('backup_storages.state', '<>', 'disabled')
      // those that answered last time first
      .orderBy('backup_storages.status')
      .execute();
    if (replicas.length === 0)
      throw new CisternError('NO_STORAGE', `image ${image.name} has no replica on a backup storage that is enabled`);
    return {
      pool: await poolRef(services, pool.storageId),
      image: { id: imageId, format: image.format },
      stores: await Promise.all(replicas.map(replica => storeRef(services, replica.id))),
    };
  });
  await op.tx(`publish the cache entry${label}`, async trx => {
    const now = new Date().toISOString();
    const set = { status: 'ready' as const, size: filled.allocated, last_used_at: now };
    await trx
      .insertInto('cache_entries')
      .values({ ...at(pool, imageId), ...set, created_at: now })
      .onConflict(c => c.columns(['image_id', 'primary_storage_id', 'host_id']).doUpdateSet(set))
      .execute();
    if (!filled.alreadyThere) await adjustAvailable(trx, pool, -filled.allocated);
  });
}

/** Moves the physical figure of a pool by what an operation has just written or freed, until it is measured again. */
export async function adjustAvailable(trx: Trx, pool: PoolKey, bytes: number): Promise<void> {
  let query = trx
    .updateTable('pools')
    .set(e => ({ available: e.fn<number>('max', [e('available', '+', bytes), e.val(0)]) }))
    .where('primary_storage_id', '=', pool.storageId)
    .where('available', 'is not', null);
  if (pool.hostId !== '') query = query.where('host_id', '=', pool.hostId);
  await query.execute();
}

function whereEntry<Q extends { where(column: 'image_id' | 'primary_storage_id' | 'host_id', op: '=', value: string): Q }>(
  query: Q,
  pool: PoolKey,
  imageId: string,
): Q {
  return query
    .where('image_id', '=', imageId)
    .where('primary_storage_id', '=', pool.storageId)
    .where('host_id', '=', pool.hostId);
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
  return all.map(hostId => ({ storageId: storage.id, hostId }));
}

async function partOf(trx: Trx, services: Services, pool: PoolKey): Promise<Part> {
  const workerHostId = await workerFor(trx, services.fleet, pool);
  return { ...pool, workerHostId, label: pool.hostId === '' ? '' : ` on ${(await findHost(trx, pool.hostId)).name}` };
}

interface CacheRequest {
  image: string;
  primaryStorage: string;
  host?: string;
}
/** One pool of a plan; `label` tells the steps of several apart. */
type Part = PoolKey & { workerHostId: string; label: string };

interface Plan {
  imageId: string;
  pools: Part[];
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
      if (await isCached(trx, image.id, pool)) continue;
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
    for (const pool of plan.pools) await ensureCached(op, plan.imageId, pool, pool.workerHostId, pool.label);
    op.finish({ imageId: plan.imageId, pools: plan.pools.length });
  },
};

/** Removes an image from a cache. Never where a volume stands on it, one in the trash included. */
export const evictFromCache: Workflow<CacheRequest, Plan> = {
  kind: 'cache.evict',
  async accept(trx, request, _operationId, services) {
    const image = await findImage(trx, request.image);
    const storage = await findPrimaryStorage(trx, request.primaryStorage);
    let entries = trx
      .selectFrom('cache_entries')
      .selectAll()
      .where('image_id', '=', image.id)
      .where('primary_storage_id', '=', storage.id)
      .where('status', '=', 'ready');
    if (request.host !== undefined) entries = entries.where('host_id', '=', (await findHost(trx, request.host)).id);
    const found = await entries.execute();
    if (found.length === 0) throw new CisternError('NOT_FOUND', `image ${image.name} is not in the cache of ${storage.name}`);
    const pools: Plan['pools'] = [];
    for (const entry of found) {
      const pool = { storageId: storage.id, hostId: entry.host_id };
      const standing = await trx
        .selectFrom('volumes')
        .select(['name', 'status'])
        .where('image_id', '=', image.id)
        .where('primary_storage_id', '=', storage.id)
        .where('host_id', '=', entry.host_id)
        .limit(4)
        .execute();
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
    for (const pool of plan.pools) {
      const { label } = pool;
      op.undo(
        `keep the cache entry${label}`,
        async () =>
          void (await db.write(trx =>
            whereEntry(trx.updateTable('cache_entries').set({ status: 'ready' }), pool, plan.imageId)
              .where('status', '=', 'deleting')
              .execute(),
          )),
      );
      await op.lock(cacheLock(pool, plan.imageId));
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
