import type { CommandOutput } from '../../shared/commands/index.ts';
import { newId } from '../../shared/id.ts';
import type { ImageFormat, Media } from '../../shared/model.ts';
import type { Trx } from '../db/database.ts';
import { claimName, findImage } from '../db/find.ts';
import type { NewImageRef } from '../../shared/commands/refs.ts';
import type { Services } from '../services.ts';
import { discard } from '../operations/garbage.ts';
import type { Run } from '../operations/workflow.ts';

export async function claimImage(
  trx: Trx,
  request: { name: string; media: Media; format: ImageFormat },
  storeIds: string[],
): Promise<string> {
  await claimName(trx, 'images', 'image', request.name);
  const id = newId();
  const created_at = new Date().toISOString();
  await trx
    .insertInto('images')
    .values({
      id,
      name: request.name,
      media: request.media,
      format: request.format,
      status: 'creating',
      size: null,
      virtual_size: null,
      digest: null,
      created_at,
    })
    .execute();
  for (const backup_storage_id of storeIds)
    await trx.insertInto('replicas').values({ image_id: id, backup_storage_id, status: 'creating', created_at }).execute();
  return id;
}

/** An image as an agent publishes it. */
export async function newImageRef({ db }: Services, imageId: string): Promise<NewImageRef> {
  const { id, format, name, media } = await findImage(db.read, imageId);
  return { id, format, name, media };
}

/** Said before an image is made: how to take back its rows and whatever came to lie on its backup storages. */
export function undoImage(op: Run, plan: { imageId: string; hostId: string; storeIds: string[] }): void {
  op.undo('forget the image', async () => {
    await op.services.db.write(async trx => {
      await trx.deleteFrom('replicas').where('image_id', '=', plan.imageId).execute();
      await trx.deleteFrom('images').where('id', '=', plan.imageId).execute();
    });
  });
  for (const [i, storeId] of plan.storeIds.entries()) {
    op.undo(`remove replica ${i + 1}`, () => discard(op, plan.hostId, { kind: 'image', storeId, imageId: plan.imageId }));
  }
}

export function finishImage(op: Run, imageId: string, done: CommandOutput<'volume.upload'>, more: Record<string, unknown>): void {
  op.finish(
    { imageId, size: done.size, virtualSize: done.virtualSize, digest: done.digest, transfers: done.transfers, ...more },
    async trx => {
      await trx
        .updateTable('images')
        .set({ status: 'ready', size: done.size, virtual_size: done.virtualSize, digest: done.digest })
        .where('id', '=', imageId)
        .execute();
      await trx.updateTable('replicas').set({ status: 'ready' }).where('image_id', '=', imageId).execute();
    },
  );
}
