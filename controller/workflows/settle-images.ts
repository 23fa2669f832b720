import type { Trx } from '../db/database.ts';
import type { Row } from '../db/schema.ts';
import type { FoundStore } from './look.ts';

/** Brings the replicas on the backup storages that were looked at, and then the images, in line with what lies there. */
export async function settleImages(trx: Trx, stores: FoundStore[]): Promise<{ missing: number }> {
  for (const { storeId, images } of stores) {
    const found = new Map(images.flatMap(({ id, manifest }) => (manifest ? [[id, manifest] as const] : [])));
    const rows = await trx.selectFrom('replicas').selectAll().where('backup_storage_id', '=', storeId).execute();
    for (const row of rows) {
      const manifest = found.get(row.image_id);
      const known = row.status === 'ready' || row.status === 'damaged';
      // what is known to be damaged stays that until it was verified, and its manifest is not believed
      const there = row.status === 'damaged' ? 'damaged' : 'ready';
      await setReplica(trx, row.image_id, storeId, manifest ? there : known ? 'missing' : row.status);
      if (!manifest || there === 'damaged') continue;
      await trx
        .updateTable('images')
        .set({ size: manifest.size, virtual_size: manifest.virtualSize, digest: manifest.digest })
        .where('id', '=', row.image_id)
        .execute();
    }
  }
  const looked = stores.map(store => store.storeId);
  // on a storage that nobody could look at it may be there or not
  let unseen = trx.updateTable('replicas').set({ status: 'missing' }).where('status', 'in', ['creating', 'deleting']);
  if (looked.length > 0) unseen = unseen.where('backup_storage_id', 'not in', looked);
  await unseen.execute();
  await trx.deleteFrom('replicas').where('status', 'in', ['creating', 'deleting']).execute();
  return { missing: await settleRows(trx) };
}

const setReplica = async (trx: Trx, imageId: string, storeId: string, status: Row<'replicas'>['status']) =>
  void (await trx
    .updateTable('replicas')
    .set({ status })
    .where('image_id', '=', imageId)
    .where('backup_storage_id', '=', storeId)
    .execute());

async function settleRows(trx: Trx): Promise<number> {
  let missing = 0;
  const images = await trx.selectFrom('images').select(['id', 'status']).where('status', '<>', 'deleted').execute();
  for (const { id, status } of images) {
    const replicas = await trx.selectFrom('replicas').select('status').where('image_id', '=', id).execute();
    const lies = replicas.some(replica => replica.status === 'ready' || replica.status === 'damaged');
    const next = lies ? 'ready' : replicas.length > 0 ? 'missing' : 'deleted';
    if (next === 'missing') missing++;
    if (next !== status) await trx.updateTable('images').set({ status: next }).where('id', '=', id).execute();
  }
  return missing;
}
