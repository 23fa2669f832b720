import { CisternError } from '../../shared/errors.ts';
import type { PoolCapacity } from '../../shared/model.ts';
import type { Reader, Trx } from '../db/database.ts';
import type { Row } from '../db/schema.ts';

/** One pool as capacity sees it: a shared primary storage, or one host's part of a local one (`hostId` is '' for shared ones). */
export interface PoolKey {
  storageId: string;
  hostId: string;
}

/** Physical bytes of a pool as they were last measured, on any host that sees it; undefined where nobody did. */
export async function lastMeasured(
  db: Reader,
  { storageId, hostId }: PoolKey,
): Promise<{ total: number; available: number; level: Row<'pools'>['level'] } | undefined> {
  let pools = db
    .selectFrom('pools')
    .select(['total', 'available', 'level'])
    .where('primary_storage_id', '=', storageId)
    .where('total', 'is not', null);
  if (hostId !== '') pools = pools.where('host_id', '=', hostId);
  const row = await pools.orderBy('measured_elapsed', 'desc').limit(1).executeTakeFirst();
  return row && { total: row.total!, available: row.available!, level: row.level };
}

/**
 * The book-keeping of a pool, summed from the rows it is made of, so that it cannot drift from them; null while nobody measured it.
 * Physical figures are those of the last measurement on any host that sees the pool.
 */
export async function poolCapacity(
  db: Reader,
  storage: Pick<Row<'primary_storages'>, 'id' | 'overcommit'>,
  hostId: string,
): Promise<PoolCapacity | null> {
  const physical = await lastMeasured(db, { storageId: storage.id, hostId });
  if (!physical) return null;
  const volumes = await db
    .selectFrom('volumes')
    .select(e => ['status', e.fn.sum<number>('size').as('size'), e.fn.sum<number | null>('allocated').as('allocated')])
    .where('primary_storage_id', '=', storage.id)
    .where('host_id', '=', hostId)
    .groupBy('status')
    .execute();
  const cache = await db
    .selectFrom('cache_entries')
    .select(e => e.fn.sum<number | null>('size').as('bytes'))
    .where('primary_storage_id', '=', storage.id)
    .where('host_id', '=', hostId)
    .executeTakeFirst();
  const reserved = await db
    .selectFrom('reservations')
    .select(e => e.fn.sum<number | null>('bytes').as('bytes'))
    .where('primary_storage_id', '=', storage.id)
    .where('host_id', '=', hostId)
    .executeTakeFirst();
  return {
    total: physical.total,
    available: physical.available,
    provisioned: volumes.reduce((total, row) => total + (row.status === 'deleted' ? 0 : row.size), 0),
    reserved: reserved?.bytes ?? 0,
    volumes: volumes.reduce((total, row) => total + (row.status === 'deleted' ? 0 : (row.allocated ?? 0)), 0),
    cache: cache?.bytes ?? 0,
    trash: volumes.reduce((total, row) => total + (row.status === 'deleted' ? (row.allocated ?? 0) : 0), 0),
    overcommit: storage.overcommit,
    level: physical.level,
  };
}

/** What a request wants of a pool, in bytes. */
export interface Wanted {
  /** Virtual size of new volumes. */
  virtual: number;
  /** Bytes that will really be written, such as an image that is not cached yet. */
  physical: number;
}

/** Why a pool has no room for what is wanted; undefined where it has. */
export function lacksRoom(capacity: PoolCapacity, wanted: Wanted, physicalThreshold: number): string | undefined {
  const limit = capacity.total * capacity.overcommit;
  if (capacity.provisioned + wanted.virtual > limit)
    return `${wanted.virtual} bytes more would provision ${capacity.provisioned + wanted.virtual} of ${Math.floor(limit)} bytes (${capacity.total} x over-commit ${capacity.overcommit})`;
  const floor = capacity.total * (1 - physicalThreshold);
  const left = capacity.available - capacity.reserved - wanted.physical;
  if (left < floor)
    return `${Math.max(0, Math.floor(left))} bytes would be left of ${capacity.total}, below the physical threshold of ${physicalThreshold}`;
  return undefined;
}

/** Promises physical bytes of a pool to an operation; given back when the operation ends. */
export async function reserve(trx: Trx, operationId: string, pool: PoolKey, bytes: number): Promise<void> {
  if (bytes === 0) return;
  await trx
    .insertInto('reservations')
    .values({ operation_id: operationId, primary_storage_id: pool.storageId, host_id: pool.hostId, bytes })
    .onConflict(c =>
      c
        .columns(['operation_id', 'primary_storage_id', 'host_id'])
        .doUpdateSet(e => ({ bytes: e('reservations.bytes', '+', bytes) })),
    )
    .execute();
}

/** Whether an operation has been promised bytes of a pool. */
export async function hasReserved(trx: Trx, operationId: string, pool: PoolKey): Promise<boolean> {
  const row = await trx
    .selectFrom('reservations')
    .select('bytes')
    .where('operation_id', '=', operationId)
    .where('primary_storage_id', '=', pool.storageId)
    .where('host_id', '=', pool.hostId)
    .executeTakeFirst();
  return row !== undefined;
}

/** Throws NO_CAPACITY where a pool that must be used has no room, or was never measured. */
export async function demandRoom(
  trx: Trx,
  storage: Row<'primary_storages'>,
  hostId: string,
  wanted: Wanted,
  physicalThreshold: number,
): Promise<void> {
  const capacity = await poolCapacity(trx, storage, hostId);
  const lack = capacity ? lacksRoom(capacity, wanted, physicalThreshold) : 'its capacity is not known yet';
  if (lack) throw new CisternError('NO_CAPACITY', `primary storage ${storage.name}: ${lack}`);
}
