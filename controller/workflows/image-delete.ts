import { CisternError } from '../../shared/errors.ts';
import { findImage } from '../db/find.ts';
import { claimLock } from '../operations/claims.ts';
import type { Workflow } from '../operations/workflow.ts';
import { anyHost } from '../policy/placement.ts';
import { storeRef } from '../fleet/refs.ts';

interface DeletePlan {
  imageId: string;
  hostId: string;
  storeIds: string[];
}

/** Removes an image from all its backup storages. Cached copies stay while volumes stand on them. */
export const deleteImage: Workflow<{ ref: string }, DeletePlan> = {
  kind: 'image.delete',
  async accept(trx, request, operationId, services) {
    const image = await findImage(trx, request.ref);
    if (image.status === 'deleted') throw new CisternError('NOT_FOUND', `image ${image.name} is deleted`);
    if (image.status !== 'ready') throw new CisternError('WRONG_STATE', `image ${image.name} is ${image.status}`);
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
    op.undo('keep what is left of the image', async () => {
      await db.write(async trx => {
        await trx.updateTable('replicas').set({ status: 'ready' }).where('image_id', '=', plan.imageId).execute();
        await trx.updateTable('images').set({ status: 'ready' }).where('id', '=', plan.imageId).execute();
      });
    });
    for (const [i, storeId] of plan.storeIds.entries()) {
      await op.task(`remove ${i + 1}`, plan.hostId, 'image.remove', async () => ({
        store: await storeRef(op.services, storeId),
        imageId: plan.imageId,
      }));
      await op.tx(
        `forget replica ${i + 1}`,
        async trx =>
          void (await trx
            .deleteFrom('replicas')
            .where('image_id', '=', plan.imageId)
            .where('backup_storage_id', '=', storeId)
            .execute()),
      );
    }
    op.finish(
      { imageId: plan.imageId },
      async trx => void (await trx.updateTable('images').set({ status: 'deleted' }).where('id', '=', plan.imageId).execute()),
    );
  },
};
