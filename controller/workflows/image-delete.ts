import { CisternError } from '../../shared/errors.ts';
import { findImage } from '../db/find.ts';
import type { Trx } from '../db/database.ts';
import { claimLock } from '../operations/claims.ts';
import { discard } from '../operations/garbage.ts';
import type { Workflow } from '../operations/workflow.ts';
import { anyHost } from '../policy/placement.ts';
import { soundOrDamaged } from './damage.ts';

interface DeletePlan {
  imageId: string;
  hostId: string;
  storeIds: string[];
}

/**
 * Removes an image from all its backup storages; from one that is away, once it is back. Cached copies stay while volumes stand on
 * them.
 */
export const deleteImage: Workflow<{ ref: string }, DeletePlan> = {
  kind: 'image.delete',
  async accept(trx, request, operationId, services) {
    const image = await findImage(trx, request.ref);
    if (image.status === 'deleted') throw new CisternError('NOT_FOUND', `image ${image.name} is deleted`);
    if (image.status !== 'ready' && image.status !== 'missing')
      throw new CisternError('WRONG_STATE', `image ${image.name} is ${image.status}`);
    await claimLock(trx, operationId, `image/${image.id}`, `image ${image.name}`);
    const filling = await trx
      .selectFrom('cache_entries')
      .select('status')
      .where('image_id', '=', image.id)
      .where('status', '=', 'creating')
      .executeTakeFirst();
    if (filling) throw new CisternError('IN_USE', `image ${image.name} is being fetched into an image cache`);
    const replicas = await trx.selectFrom('replicas').select('backup_storage_id').where('image_id', '=', image.id).execute();
    await trx.updateTable('images').set({ status: 'deleting' }).where('id', '=', image.id).execute();
    await trx.updateTable('replicas').set({ status: 'deleting' }).where('image_id', '=', image.id).execute();
    const host = await anyHost(trx, services.fleet);
    return {
      plan: { imageId: image.id, hostId: host.id, storeIds: replicas.map(row => row.backup_storage_id) },
      resources: [{ kind: 'image', id: image.id }],
    };
  },
  async run(op, plan) {
    const { db } = op.services;
    const forget = (storeId: string) => async (trx: Trx) =>
      void (await trx
        .deleteFrom('replicas')
        .where('image_id', '=', plan.imageId)
        .where('backup_storage_id', '=', storeId)
        .execute());
    op.undo('keep what is left of the image', async () => {
      await db.write(async trx => {
        const left = await trx
          .updateTable('replicas')
          .set({ status: soundOrDamaged })
          .where('image_id', '=', plan.imageId)
          .executeTakeFirst();
        const status = left.numUpdatedRows > 0n ? 'ready' : 'deleted';
        await trx.updateTable('images').set({ status }).where('id', '=', plan.imageId).execute();
      });
    });
    for (const [i, storeId] of plan.storeIds.entries()) {
      const remove = () => discard(op, plan.hostId, { kind: 'image', storeId, imageId: plan.imageId }, `remove ${i + 1}`);
      // half of a replica is of no use: where removing it has begun it goes, also when the operation is cancelled
      op.undo(`finish removing replica ${i + 1}`, async () => {
        await remove();
        await db.write(forget(storeId));
      });
      await remove();
      await op.tx(`forget replica ${i + 1}`, forget(storeId));
    }
    op.finish(
      { imageId: plan.imageId },
      async trx => void (await trx.updateTable('images').set({ status: 'deleted' }).where('id', '=', plan.imageId).execute()),
    );
  },
};
