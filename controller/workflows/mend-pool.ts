import type { FoundVolume } from '../../shared/commands/pool.ts';
import { elapsedNow } from '../db/elapsed.ts';
import type { Trx } from '../db/database.ts';
import { findPrimaryStorage } from '../db/find.ts';
import type { Row } from '../db/schema.ts';
import type { PoolKey } from '../policy/capacity.ts';
import type { Services } from '../services.ts';
import { freeName } from './adopt-images.ts';
import { whereEntry } from './cache-rows.ts';
import type { Difference } from './difference.ts';
import { volumePath } from './volume-create.ts';

/** Makes the row of a volume that nobody knew, as the note beside it tells. Its time in the trash, where it lies there, begins anew. */
export async function adoptVolume(
  trx: Trx,
  { events }: Services,
  kind: 'volume' | 'volume in the trash',
  found: FoundVolume,
  at: { primary_storage_id: string; host_id: string },
): Promise<Partial<Difference>> {
  const { id, allocated, imageId } = found;
  const storage = await findPrimaryStorage(trx, at.primary_storage_id);
  const trashed = kind === 'volume in the trash';
  const name = trashed ? (found.name ?? id) : await freeName(trx, 'volumes', id, found.name);
  const row = {
    id,
    name,
    kind: found.kind ?? (imageId === null ? 'data' : 'root'),
    status: trashed ? ('deleted' as const) : ('ready' as const),
    primary_storage_id: at.primary_storage_id,
    host_id: at.host_id,
    image_id: imageId,
    layer_id: found.layerId!,
    format: storage.volume_format,
    path: volumePath(storage, id, found.layerId!),
    size: found.size!,
    allocated,
    created_at: found.createdAt!,
    deleted_at: trashed ? new Date().toISOString() : null,
    deleted_elapsed: trashed ? elapsedNow() : null,
  };
  // it may be known as missing elsewhere: from before it was moved here
  await trx
    .insertInto('volumes')
    .values(row)
    .onConflict(c => c.column('id').doUpdateSet(row))
    .execute();
  await events.append(trx, 'volume.adopted', { kind: 'volume', id }, `volume ${name} was adopted: nobody knew of it`);
  return { name };
}

/** `deleted_at: null` also ends its time in the trash. */
export async function setVolume(
  trx: Trx,
  id: string,
  values: Partial<Pick<Row<'volumes'>, 'status' | 'size' | 'allocated' | 'deleted_at'>>,
): Promise<void> {
  const all = { ...values, ...(values.deleted_at === null && { deleted_elapsed: null }) };
  await trx.updateTable('volumes').set(all).where('id', '=', id).execute();
}

/** Its time in the trash begins now: when it was deleted is not known. */
export async function trashVolume(trx: Trx, id: string): Promise<void> {
  const values = { status: 'deleted', deleted_at: new Date().toISOString(), deleted_elapsed: elapsedNow() } as const;
  await trx.updateTable('volumes').set(values).where('id', '=', id).execute();
}

/** What it holds is judged when the next volume is to stand on it. */
export async function addEntry(trx: Trx, pool: PoolKey, imageId: string, size: number): Promise<void> {
  const now = new Date().toISOString();
  const at = { primary_storage_id: pool.storageId, host_id: pool.hostId };
  await trx
    .insertInto('cache_entries')
    .values({ ...at, image_id: imageId, status: 'ready', size, last_used_at: now, created_at: now })
    .execute();
}

export const forgetEntry = async (trx: Trx, pool: PoolKey, imageId: string): Promise<void> =>
  void (await whereEntry(trx.deleteFrom('cache_entries'), pool, imageId).execute());
