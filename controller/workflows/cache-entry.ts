import { CisternError } from '../../shared/errors.ts';
import type { Trx } from '../db/database.ts';
import { findImage } from '../db/find.ts';
import type { Row } from '../db/schema.ts';
import type { Run } from '../operations/workflow.ts';
import { hasReserved, type PoolKey, reserve } from '../policy/capacity.ts';
import { isCached } from '../policy/placement.ts';
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
    // it counted on another operation's promise of room, which went with that one
    if (!(await hasReserved(trx, op.id, pool))) await reserve(trx, op.id, pool, (await findImage(trx, imageId)).size ?? 0);
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
    if (replicas.length === 0 || image.digest === null)
      throw new CisternError('NO_STORAGE', `image ${image.name} has no replica on a backup storage that is enabled`);
    return {
      pool: await poolRef(services, pool.storageId),
      image: { id: imageId, format: image.format, digest: image.digest },
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

export function whereEntry<Q extends { where(column: 'image_id' | 'primary_storage_id' | 'host_id', op: '=', value: string): Q }>(
  query: Q,
  pool: PoolKey,
  imageId: string,
): Q {
  return query
    .where('image_id', '=', imageId)
    .where('primary_storage_id', '=', pool.storageId)
    .where('host_id', '=', pool.hostId);
}
