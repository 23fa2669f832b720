import type { Trx } from '../db/database.ts';
import type { FoundPool } from './look.ts';
import { setVolume, trashVolume } from './mend-pool.ts';

/** What became of rows in a recovery. */
export interface Settled {
  ready: number;
  trashed: number;
  missing: number;
  forgotten: number;
}

/** Brings the volumes and cached images of a pool in line with what lies there. Removes rows only of what was to be removed, or was never made. */
export async function settlePool(trx: Trx, pool: FoundPool, settled: Settled): Promise<void> {
  const there = new Map(pool.volumes.map(found => [found.id, found]));
  const trash = new Set(pool.trash.map(found => found.id));
  const rows = await trx
    .selectFrom('volumes')
    .selectAll()
    .where('primary_storage_id', '=', pool.storageId)
    .where('host_id', '=', pool.hostId)
    .execute();
  for (const row of rows) {
    const found = there.get(row.id);
    if (found && row.status !== 'deleted') {
      if (row.status === 'ready' && (found.size ?? row.size) === row.size) continue;
      await setVolume(trx, row.id, { status: 'ready', size: found.size ?? row.size, allocated: found.allocated });
      settled.ready++;
    } else if (trash.has(row.id)) {
      if (row.status === 'deleted') continue;
      await trashVolume(trx, row.id);
      settled.trashed++;
    } else if (row.status === 'ready' || row.status === 'missing') {
      if (row.status === 'ready') await setVolume(trx, row.id, { status: 'missing' });
      settled.missing++;
    } else {
      await trx.deleteFrom('volumes').where('id', '=', row.id).execute();
      settled.forgotten++;
    }
  }
  await settleCache(trx, pool);
}

async function settleCache(trx: Trx, pool: FoundPool): Promise<void> {
  const at = { primary_storage_id: pool.storageId, host_id: pool.hostId };
  await trx
    .deleteFrom('cache_entries')
    .where('primary_storage_id', '=', pool.storageId)
    .where('host_id', '=', pool.hostId)
    .execute();
  const now = new Date().toISOString();
  for (const { imageId, allocated } of pool.cache) {
    const image = await trx.selectFrom('images').select('id').where('id', '=', imageId).executeTakeFirst();
    if (!image) continue;
    await trx
      .insertInto('cache_entries')
      .values({ ...at, image_id: imageId, status: 'ready', size: allocated, last_used_at: now, created_at: now })
      .execute();
  }
}

/** In pools that nobody could look at: what operations were about to make or remove may be there or not. */
export async function settleUnseen(trx: Trx): Promise<number> {
  const volumes = await trx
    .updateTable('volumes')
    .set({ status: 'missing' })
    .where('status', 'in', ['creating', 'deleting'])
    .executeTakeFirst();
  await trx.deleteFrom('cache_entries').where('status', '<>', 'ready').execute();
  return Number(volumes.numUpdatedRows);
}
