import { CisternError } from '../../shared/errors.ts';
import type { Trx } from '../db/database.ts';
import { findHost } from '../db/find.ts';
import type { Row } from '../db/schema.ts';
import type { PoolKey } from '../policy/capacity.ts';
import { workerFor } from '../policy/placement.ts';
import type { Services } from '../services.ts';

/** An image in the caches of a primary storage, or of one host's part of it. */
export interface CacheRequest {
  image: string;
  primaryStorage: string;
  host?: string;
}

/** One pool of a plan, and the host that works on it; `label` tells the steps of several apart. */
export type Part = PoolKey & { workerHostId: string; label: string };

export async function partOf(trx: Trx, services: Services, pool: PoolKey): Promise<Part> {
  const workerHostId = await workerFor(trx, services.fleet, pool);
  return { ...pool, workerHostId, label: pool.hostId === '' ? '' : ` on ${(await findHost(trx, pool.hostId)).name}` };
}

/** The pools that have an image in their cache, sound or damaged, in an order that is always the same; NOT_FOUND where none has. */
export async function poolsHolding(
  trx: Trx,
  image: Row<'images'>,
  storage: Row<'primary_storages'>,
  host: string | undefined,
): Promise<PoolKey[]> {
  let entries = trx
    .selectFrom('cache_entries')
    .select('host_id')
    .where('image_id', '=', image.id)
    .where('primary_storage_id', '=', storage.id)
    .where('status', 'in', ['ready', 'damaged']);
  if (host !== undefined) entries = entries.where('host_id', '=', (await findHost(trx, host)).id);
  const found = await entries.orderBy('host_id').execute();
  if (found.length === 0) throw new CisternError('NOT_FOUND', `image ${image.name} is not in the cache of ${storage.name}`);
  return found.map(({ host_id: hostId }) => ({ storageId: storage.id, hostId }));
}
