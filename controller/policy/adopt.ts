import type { Trx } from '../db/database.ts';
import type { PoolKey } from './capacity.ts';

/**
 * Takes into the books an image that a measurement found in a cache without a row: a host finished it when nobody could tell it any
 * more that it was cancelled. What is in a cache is whole, so it is of use, and eviction sees to it from now on. `began`: when the
 * measurement did, in milliseconds that controllers have run; where an operation had to do with the image since then, the next
 * measurement tells.
 */
export async function adopt(trx: Trx, pool: PoolKey, imageId: string, allocated: number, began: number): Promise<void> {
  const known = await trx.selectFrom('images').select('id').where('id', '=', imageId).executeTakeFirst();
  if (!known) return;
  if (await touchedSince(trx, imageId, began)) return;
  const now = new Date().toISOString();
  await trx
    .insertInto('cache_entries')
    .values({
      image_id: imageId,
      primary_storage_id: pool.storageId,
      host_id: pool.hostId,
      status: 'ready',
      size: allocated,
      last_used_at: now,
      created_at: now,
    })
    .onConflict(c => c.doNothing())
    .execute();
}

/**
 * Takes out of the books the volumes of a pool's trash that a measurement did not find there: emptying it was cut short after they had
 * gone, or somebody removed them. `began` as above.
 */
export async function forgetPurged(trx: Trx, pool: PoolKey, there: ReadonlySet<string>, began: number): Promise<void> {
  const rows = await trx
    .selectFrom('volumes')
    .select('id')
    .where('status', '=', 'deleted')
    .where('primary_storage_id', '=', pool.storageId)
    .where('host_id', '=', pool.hostId)
    .execute();
  for (const { id } of rows)
    if (!there.has(id) && !(await touchedSince(trx, id, began))) await trx.deleteFrom('volumes').where('id', '=', id).execute();
}

/** Whether an operation has to do with an image or a volume now, or had since `began`. */
async function touchedSince(trx: Trx, id: string, began: number): Promise<boolean> {
  const touched = await trx
    .selectFrom('operations')
    .select('id')
    .where('resources_json', 'like', `%"${id}"%`)
    .where(e => e.or([e('finished_at', 'is', null), e('finished_elapsed', '>=', began)]))
    .limit(1)
    .executeTakeFirst();
  return touched !== undefined;
}
