import { CisternError } from '../../shared/errors.ts';
import type { Trx } from '../db/database.ts';
import { findBackupStorage, findImage } from '../db/find.ts';
import { claimLock } from '../operations/claims.ts';
import { discard } from '../operations/garbage.ts';
import type { Workflow } from '../operations/workflow.ts';
import { anyHost } from '../policy/placement.ts';

interface ReplicaPlan {
  imageId: string;
  storeId: string;
  hostId: string;
}

/** Removes an image from one of its backup storages; from one that is away, once it is back. */
export const deleteReplica: Workflow<{ ref: string; store: string }, ReplicaPlan> = {
  kind: 'image.replica-delete',
  async accept(trx, request, operationId, services) {
    const image = await findImage(trx, request.ref);
    const store = await findBackupStorage(trx, request.store);
    const replicas = await trx.selectFrom('replicas').selectAll().where('image_id', '=', image.id).execute();
    const [mine, others] = [true, false].map(is => replicas.filter(row => (row.backup_storage_id === store.id) === is));
    if (mine![0] === undefined)
      throw new CisternError('NOT_FOUND', `image ${image.name} has no replica on backup storage ${store.name}`);
    if (image.status !== 'ready') throw new CisternError('WRONG_STATE', `image ${image.name} is ${image.status}`);
    await claimLock(trx, operationId, `image/${image.id}`, `image ${image.name}`);
    if (!others!.some(row => row.status === 'ready'))
      throw new CisternError('IN_USE', `image ${image.name} has no other good replica than the one on ${store.name}`, {
        action: `Copy it elsewhere first (cistern image replicate ${image.name} --to BACKUP_STORAGE), or delete the image: cistern image delete ${image.name}`,
      });
    await setDeleting(trx, image.id, store.id);
    const host = await anyHost(trx, services.fleet);
    return {
      plan: { imageId: image.id, storeId: store.id, hostId: host.id },
      resources: [
        { kind: 'image', id: image.id },
        { kind: 'backup-storage', id: store.id },
      ],
    };
  },
  async run(op, { imageId, storeId, hostId }) {
    const remove = () => discard(op, hostId, { kind: 'image', storeId, imageId });
    const forget = async (trx: Trx): Promise<void> =>
      void (await trx.deleteFrom('replicas').where('image_id', '=', imageId).where('backup_storage_id', '=', storeId).execute());
    // half of a replica is of no use: it goes also when the operation is cancelled
    op.undo('finish removing the replica', async () => {
      await remove();
      await op.services.db.write(forget);
    });
    await remove();
    op.finish({ imageId, backupStorageId: storeId }, forget);
  },
};

const setDeleting = async (trx: Trx, imageId: string, storeId: string): Promise<void> =>
  void (await trx
    .updateTable('replicas')
    .set({ status: 'deleting' })
    .where('image_id', '=', imageId)
    .where('backup_storage_id', '=', storeId)
    .execute());
