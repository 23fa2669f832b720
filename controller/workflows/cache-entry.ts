import type { CommandInput } from '../../shared/commands/index.ts';
import { CisternError } from '../../shared/errors.ts';
import type { Trx } from '../db/database.ts';
import { findImage } from '../db/find.ts';
import type { Row } from '../db/schema.ts';
import type { Run } from '../operations/workflow.ts';
import type { Services } from '../services.ts';
import { hasReserved, type PoolKey, reserve } from '../policy/capacity.ts';
import { cacheStatus, isCached } from '../policy/placement.ts';
import { poolRef, storeRef } from '../fleet/refs.ts';
import { sourceStores } from './image-sources.ts';
import { whereEntry } from './cache-rows.ts';
import { markCacheDamaged, markFaults, markReplica } from './damage.ts';

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

/** Lets the undo of `op` take back the entry of a cache that it claimed and did not fill. To be said of every claim before the first one is filled. */
export function forgetUnmade(op: Run, imageId: string, pool: PoolKey, label = ''): void {
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
}

/**
 * Makes sure that an image is in a pool's cache. However many operations want it at once, one of them fetches it, under the lock of
 * this pool and image, and the others find it there. What it leaves when it fails is `forgetUnmade`'s.
 */
export async function ensureCached(op: Run, imageId: string, pool: PoolKey, workerHostId: string, label = ''): Promise<void> {
  const { services } = op;
  await op.lock(cacheLock(pool, imageId));
  const ready = await op.tx(`look in the image cache${label}`, async trx => {
    if (await isCached(trx, imageId, pool)) return true;
    const now = new Date().toISOString();
    // a damaged copy stays known as that until another one has taken its place: volumes may stand on it
    if ((await cacheStatus(trx, imageId, pool)) !== 'damaged')
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
  const filled = await op
    .task(`fill the image cache${label}`, workerHostId, 'cache.fill', () => fillInput(services, imageId, pool))
    .catch(async (error: unknown) => {
      const faults = error instanceof CisternError ? (error.replicas ?? []) : [];
      if (faults.length > 0) await services.db.write(trx => markFaults(trx, services, imageId, faults));
      throw error;
    });
  await op.tx(`publish the cache entry${label}`, async trx => {
    const now = new Date().toISOString();
    const set = { status: 'ready' as const, reason: null, verified_at: now, size: filled.allocated, last_used_at: now };
    await trx
      .insertInto('cache_entries')
      .values({ ...at(pool, imageId), ...set, created_at: now })
      .onConflict(c => c.columns(['image_id', 'primary_storage_id', 'host_id']).doUpdateSet(set))
      .execute();
    if (!filled.alreadyThere) await adjustAvailable(trx, pool, -filled.allocated);
    await markFaults(trx, services, imageId, filled.faults);
    if (filled.storeId !== null) await markReplica(trx, services, imageId, filled.storeId, null);
  });
}

/** What `cache.fill` needs. */
async function fillInput(services: Services, imageId: string, pool: PoolKey): Promise<CommandInput<'cache.fill'>> {
  const image = await findImage(services.db.read, imageId);
  const stores = await sourceStores(services.db.read, image);
  return {
    pool: await poolRef(services, pool.storageId),
    image: { id: imageId, format: image.format, digest: image.digest! },
    stores: await Promise.all(stores.map(id => storeRef(services, id))),
  };
}

/**
 * Runs `use`, which stands on a cached image; where that turns out to be damaged, it is fetched anew into its place, and `use` is run once
 * more. `use` is told what its steps are to be called.
 */
export async function onSoundImage<T>(
  op: Run,
  imageId: string | null,
  pool: PoolKey,
  workerHostId: string,
  use: (again: string) => Promise<T>,
): Promise<T> {
  try {
    return await use('');
  } catch (error) {
    if (imageId === null || !(error instanceof CisternError && error.code === 'CACHE_DAMAGED')) throw error;
    await op.services.db.write(trx => markCacheDamaged(trx, op.services, pool, imageId, error.message));
    forgetUnmade(op, imageId, pool, ' again');
    await ensureCached(op, imageId, pool, workerHostId, ' again');
    return use(' again');
  }
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
