import type { FoundImage } from '../../shared/commands/store.ts';
import type { Trx } from '../db/database.ts';
import { findBackupStorage } from '../db/find.ts';
import type { Row } from '../db/schema.ts';
import { claimLock } from '../operations/claims.ts';
import { doomedImages } from '../operations/garbage.ts';
import type { Workflow } from '../operations/workflow.ts';
import type { Services } from '../services.ts';
import { adoptImage, adoptReplica, isSame } from './adopt-images.ts';
import { countsOf, type Difference, SETTLED } from './difference.ts';
import { lookAtStore } from './look.ts';

/** An image as the database knows it, with its replica on the storage that is looked at. */
interface Known {
  image: Row<'images'>;
  replica: Row<'replicas'> | undefined;
}

/** Compares a backup storage with what is known of it; with `adopt` it takes in what is not known and has a sound manifest. */
export const scanBackupStorage: Workflow<{ ref: string; adopt?: boolean }, { storeId: string; adopt?: boolean }> = {
  kind: 'backup-storage.scan',
  async accept(trx, { ref, adopt = false }, operationId, { recovery }) {
    const store = await findBackupStorage(trx, ref);
    if (adopt) {
      recovery.refuse();
      await claimLock(trx, operationId, `backup-storage/${store.id}`, `backup storage ${store.name}`);
    }
    return { plan: { storeId: store.id, adopt }, resources: [{ kind: 'backup-storage', id: store.id }] };
  },
  async run(op, { storeId, adopt }) {
    const { services } = op;
    let { images } = await lookAtStore(op, storeId);
    if (adopt) {
      // what operations make or remove meanwhile must not be taken for lost: their images are held still, and looked at once more
      const found = images.map(image => image.id);
      const held = await op.step('find known images', async () => {
        const rows = await services.db.read.selectFrom('images').select('id').where('status', '<>', 'deleted').execute();
        const whole = await services.db.read
          .selectFrom('replicas')
          .select('image_id')
          .where('backup_storage_id', '=', storeId)
          .where('status', '=', 'ready')
          .execute();
        const settled = new Set(whole.map(row => row.image_id));
        return rows.map(row => row.id).filter(id => found.includes(id) && !settled.has(id));
      });
      await op.lock(...held.map(id => `image/${id}`));
      ({ images } = await lookAtStore(op, storeId, ' again'));
    }
    const differences = await op.tx(adopt ? 'compare and adopt' : 'compare', trx =>
      compare(trx, services, storeId, images, adopt === true),
    );
    op.finish({ backupStorageId: storeId, ...countsOf(differences), differences });
  },
};

async function compare(
  trx: Trx,
  services: Services,
  storeId: string,
  found: FoundImage[],
  adopt: boolean,
): Promise<Difference[]> {
  const images = await trx.selectFrom('images').selectAll().execute();
  const replicas = await trx.selectFrom('replicas').selectAll().where('backup_storage_id', '=', storeId).execute();
  const replicaOf = new Map(replicas.map(replica => [replica.image_id, replica]));
  const known = new Map(images.map(image => [image.id, { image, replica: replicaOf.get(image.id) }]));
  const doomed = await doomedImages(trx, storeId);
  const differences: Difference[] = [];
  for (const image of found) {
    const difference = doomed.has(image.id)
      ? orphan(image, 'is to be removed')
      : await compareOne(trx, services, storeId, image, known.get(image.id), adopt);
    if (difference) differences.push(difference);
  }
  const whole = new Set(found.filter(image => image.manifest).map(image => image.id));
  for (const { image_id: id, status } of replicas) {
    const { name, size, created_at: createdAt } = known.get(id)!.image;
    if (SETTLED.includes(status) && !whole.has(id))
      differences.push({ what: 'missing', kind: 'image', id, name, size, createdAt });
  }
  return differences;
}

/** What is to be told of an image that lies there; undefined where nothing is. */
async function compareOne(
  trx: Trx,
  services: Services,
  storeId: string,
  found: FoundImage,
  known: Known | undefined,
  adopt: boolean,
): Promise<Difference | undefined> {
  const { id, manifest } = found;
  if (!manifest) return known?.replica ? undefined : orphan(found, found.problem ?? 'it has no manifest');
  if (!known) return adopt ? adoptImage(trx, services, storeId, id, manifest) : orphan(found);
  const { image, replica } = known;
  if (image.status === 'deleted') return orphan(found, 'it was deleted here');
  if (!SETTLED.includes(image.status) || (replica && !SETTLED.includes(replica.status))) return undefined;
  const { name } = image;
  if (!isSame(image, manifest))
    return { ...orphan(found, 'its manifest describes another image than the one that is known'), what: 'different', name };
  if (replica?.status === 'ready') return undefined;
  if (!adopt) return replica ? undefined : { ...orphan(found), name };
  await adoptReplica(trx, storeId, id);
  return { ...orphan(found), what: 'adopted', name, ...(replica === undefined && { note: 'as a replica' }) };
}

const orphan = ({ id, manifest }: FoundImage, note?: string): Difference => ({
  what: 'orphan',
  kind: 'image',
  id,
  ...(manifest?.name !== undefined && { name: manifest.name }),
  size: manifest?.size ?? null,
  createdAt: manifest?.createdAt ?? null,
  ...(note !== undefined && { note }),
});
