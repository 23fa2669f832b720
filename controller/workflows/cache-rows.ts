import type { PoolKey } from '../policy/capacity.ts';

/** Narrows a query down to an image in the cache of a pool. */
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
