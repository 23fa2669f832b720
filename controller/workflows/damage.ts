import { sql } from 'kysely';
import type { ErrorCode, ReplicaFault } from '../../shared/errors.ts';
import type { Trx } from '../db/database.ts';
import { findBackupStorage, findImage, findPrimaryStorage } from '../db/find.ts';
import type { PoolKey } from '../policy/capacity.ts';
import type { Services } from '../services.ts';
import { whereEntry } from './cache-rows.ts';

/** Errors that speak of the stored object itself; others, such as of a server that is away, say nothing of it. */
const OF_OBJECTS: readonly string[] = ['DIGEST_MISMATCH', 'MANIFEST_INVALID', 'OBJECT_MISSING'] satisfies ErrorCode[];

/** What the copy of an image is that is not removed after all: the reason of a damage outlasts its status. */
export const soundOrDamaged = sql<'ready' | 'damaged'>`case when reason is null then 'ready' else 'damaged' end`;

/** Whether an error speaks of the stored object itself. */
export const isOfObject = (code: string): boolean => OF_OBJECTS.includes(code);

/** Notes what was found of an image's replica: damaged, for `reason`, or sound again (null). An event where that is news. */
export async function markReplica(
  trx: Trx,
  { events }: Services,
  imageId: string,
  storeId: string,
  reason: string | null,
): Promise<void> {
  const status = reason === null ? 'ready' : 'damaged';
  const changed = await trx
    .updateTable('replicas')
    .set({ status, reason })
    .where('image_id', '=', imageId)
    .where('backup_storage_id', '=', storeId)
    .where('status', '=', reason === null ? 'damaged' : 'ready')
    .executeTakeFirst();
  if (changed.numUpdatedRows === 0n) return;
  const [image, store] = [await findImage(trx, imageId), await findBackupStorage(trx, storeId)];
  await events.append(
    trx,
    reason === null ? 'replica.repaired' : 'replica.damaged',
    { kind: 'image', id: imageId },
    `the replica of image ${image.name} on ${store.name} is ${reason === null ? 'sound again' : `damaged: ${reason}`}`,
  );
}

/** Notes the replicas that were tried in vain, those whose object is to blame for it. */
export async function markFaults(trx: Trx, services: Services, imageId: string, faults: readonly ReplicaFault[]): Promise<void> {
  for (const { storeId, code, detail } of faults)
    if (isOfObject(code)) await markReplica(trx, services, imageId, storeId, `${code}: ${detail}`);
}

/** Notes that the cached copy of an image on a pool is damaged: no clone is made of it until it was fetched anew. */
export async function markCacheDamaged(
  trx: Trx,
  { events }: Services,
  pool: PoolKey,
  imageId: string,
  reason: string,
): Promise<void> {
  const entry = whereEntry(trx.updateTable('cache_entries').set({ status: 'damaged', reason }), pool, imageId);
  const changed = await entry.where('status', '=', 'ready').executeTakeFirst();
  if (changed.numUpdatedRows === 0n) return;
  const [image, storage] = [await findImage(trx, imageId), await findPrimaryStorage(trx, pool.storageId)];
  await events.append(
    trx,
    'cache.damaged',
    { kind: 'image', id: imageId },
    `the copy of image ${image.name} in the cache of ${storage.name} is damaged: ${reason}`,
  );
}
