import { CisternError } from '../../shared/errors.ts';
import type { Reader } from '../db/database.ts';
import { findHost, findPrimaryStorage } from '../db/find.ts';
import type { Row } from '../db/schema.ts';
import type { Fleet } from '../fleet/fleet.ts';
import { lacksRoom, poolCapacity, type PoolKey, type Wanted } from './capacity.ts';

/** A pool and a host that can work on it. */
export interface Place extends PoolKey {
  storage: Row<'primary_storages'>;
  workerHostId: string;
}

interface Candidate extends Place {
  used: number;
  cached: boolean;
  /** In the cache, or on its way there. */
  near: boolean;
}

/** The hosts that see a primary storage and may work, least busy first; none while it is in maintenance. */
export async function workers(db: Reader, fleet: Fleet, storageId: string): Promise<string[]> {
  const rows = await db
    .selectFrom('pools')
    .innerJoin('hosts', 'hosts.id', 'pools.host_id')
    .innerJoin('primary_storages', 'primary_storages.id', 'pools.primary_storage_id')
    .select('hosts.id')
    .where('pools.primary_storage_id', '=', storageId)
    .where('primary_storages.state', '<>', 'maintenance')
    .where('pools.status', '=', 'connected')
    .where('hosts.status', '=', 'connected')
    .where('hosts.state', '=', 'enabled')
    .orderBy('hosts.name')
    .execute();
  return rows.map(row => row.id).sort((a, b) => fleet.busy(a) - fleet.busy(b));
}

/** A host that works on `pool` now: the pool's own for local storages, else the least busy one. NO_HOST where there is none. */
export async function workerFor(db: Reader, fleet: Fleet, pool: PoolKey): Promise<string> {
  const all = await workers(db, fleet, pool.storageId);
  const host = pool.hostId === '' ? all[0] : all.find(id => id === pool.hostId);
  if (host) return host;
  const storage = await findPrimaryStorage(db, pool.storageId);
  if (storage.state === 'maintenance') throw new CisternError('WRONG_STATE', `primary storage ${storage.name} is in maintenance`);
  throw new CisternError(
    'NO_HOST',
    pool.hostId === ''
      ? `no connected and enabled host sees primary storage ${storage.name}`
      : `host ${(await findHost(db, pool.hostId)).name}, on which this part of ${storage.name} lies, is not connected and enabled`,
  );
}

export interface PlacementRequest {
  wanted: Wanted;
  /** Bytes of the image that a pool without it in its cache must fetch first. */
  image?: { id: string; size: number };
  storage?: string;
  host?: string;
}

/**
 * Chooses where new volumes go: pools that have the image cached, or on its way, come first, then the least used ones. Throws NO_STORAGE with the
 * reason for each storage that was passed over.
 */
export async function place(
  db: Reader,
  fleet: Fleet,
  request: PlacementRequest,
  physicalThreshold: number,
): Promise<Place & { cached: boolean }> {
  const host = request.host === undefined ? undefined : await findHost(db, request.host);
  const storages =
    request.storage === undefined
      ? await db.selectFrom('primary_storages').selectAll().orderBy('name').execute()
      : [await findPrimaryStorage(db, request.storage)];
  const passed: string[] = [];
  let full = false;
  const candidates: Candidate[] = [];
  for (const storage of storages) {
    if (storage.state !== 'enabled') {
      passed.push(`${storage.name} is in state ${storage.state}`);
      continue;
    }
    const hosts = (await workers(db, fleet, storage.id)).filter(id => host === undefined || id === host.id);
    if (hosts.length === 0) passed.push(`${storage.name} is not connected on ${host ? `host ${host.name}` : 'any enabled host'}`);
    for (const workerHostId of storage.shared ? hosts.slice(0, 1) : hosts) {
      const hostId = storage.shared ? '' : workerHostId;
      const entry = request.image && (await cacheStatus(db, request.image.id, { storageId: storage.id, hostId }));
      // room for one that is on its way has been promised already
      const near = entry === 'ready' || entry === 'creating';
      const physical = request.wanted.physical + (request.image && !near ? request.image.size : 0);
      const capacity = await poolCapacity(db, storage, hostId);
      const lack = capacity
        ? lacksRoom(capacity, { ...request.wanted, physical }, physicalThreshold)
        : 'its capacity is not known yet';
      if (lack) {
        passed.push(`${storage.name}: ${lack}`);
        full ||= capacity !== null;
      } else
        candidates.push({
          storage,
          storageId: storage.id,
          hostId,
          workerHostId,
          cached: entry === 'ready',
          near,
          used: 1 - (capacity!.available - capacity!.reserved) / Math.max(1, capacity!.total),
        });
    }
  }
  candidates.sort((a, b) => Number(b.near) - Number(a.near) || a.used - b.used);
  const best = candidates[0];
  if (best) return best;
  throw new CisternError(
    full && request.storage !== undefined ? 'NO_CAPACITY' : 'NO_STORAGE',
    passed.length > 0 ? passed.join('; ') : 'there is no primary storage',
  );
}

export const isCached = async (db: Reader, imageId: string, pool: PoolKey): Promise<boolean> =>
  (await cacheStatus(db, imageId, pool)) === 'ready';

/** Of an image in a pool's cache; undefined where it is not there and nobody is fetching it. */
export async function cacheStatus(
  db: Reader,
  imageId: string,
  pool: PoolKey,
): Promise<Row<'cache_entries'>['status'] | undefined> {
  const row = await db
    .selectFrom('cache_entries')
    .select('status')
    .where('image_id', '=', imageId)
    .where('primary_storage_id', '=', pool.storageId)
    .where('host_id', '=', pool.hostId)
    .executeTakeFirst();
  return row?.status;
}

/** A connected and enabled host for work that touches no pool, the least busy one. */
export async function anyHost(db: Reader, fleet: Fleet, ref?: string): Promise<Row<'hosts'>> {
  if (ref !== undefined) {
    const host = await findHost(db, ref);
    if (host.status !== 'connected' || host.state !== 'enabled')
      throw new CisternError('NO_HOST', `host ${host.name} is ${host.status} and ${host.state}`);
    return host;
  }
  const hosts = await db
    .selectFrom('hosts')
    .selectAll()
    .where('status', '=', 'connected')
    .where('state', '=', 'enabled')
    .execute();
  const best = hosts.sort((a, b) => fleet.busy(a.id) - fleet.busy(b.id))[0];
  if (!best) throw new CisternError('NO_HOST', 'no host is connected and enabled');
  return best;
}
