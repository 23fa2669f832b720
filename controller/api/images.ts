import { setTimeout as delay } from 'node:timers/promises';
import { CisternError } from '../../shared/errors.ts';
import { derivedId } from '../../shared/id.ts';
import { claimName, findBackupStorage, findImage } from '../db/find.ts';
import { deleteImage } from '../workflows/image-delete.ts';
import { IMPORT_STEP, importImage, type ImportPlan } from '../workflows/image-import.ts';
import { deleteReplica } from '../workflows/image-replica-delete.ts';
import { replicateImage } from '../workflows/image-replicate.ts';
import { verifyImage } from '../workflows/verify.ts';
import { type Api, closed, type Handlers, startOperation } from './api.ts';
import { pageOf } from './paging.ts';
import { toImages } from './views.ts';

type Keys =
  | 'listImages'
  | 'getImage'
  | 'importImage'
  | 'uploadImage'
  | 'renameImage'
  | 'verifyImage'
  | 'replicateImage'
  | 'deleteReplica'
  | 'deleteImage';

/** How long an upload waits for its import to have begun on the host. */
const BEGIN_SECONDS = 15;

export function imageHandlers(api: Api): Handlers<Keys> {
  const { db, fleet, secrets } = api.services;

  /** The host and the task that wait for the bytes of an image. */
  const uploadTask = async (ref: string): Promise<{ hostId: string; taskId: string }> => {
    const image = await findImage(db.read, ref);
    const open = await db.read
      .selectFrom('operations')
      .select(['id', 'plan_sealed'])
      .where('kind', '=', importImage.kind)
      .where('state', '=', 'running')
      .execute();
    for (const row of open) {
      const plan = secrets.open<ImportPlan>(row.plan_sealed, `operations.plan_sealed/${row.id}`);
      if (plan.imageId !== image.id) continue;
      if (plan.source.type !== 'upload')
        throw new CisternError('WRONG_STATE', `image ${image.name} is imported from elsewhere and takes no upload`);
      return { hostId: plan.hostId, taskId: derivedId(row.id, `${IMPORT_STEP}#1`) };
    }
    throw new CisternError('WRONG_STATE', `image ${image.name} is ${image.status} and waits for no upload`);
  };

  return {
    async listImages({ query }) {
      let rows = db.read.selectFrom('images').selectAll();
      rows = query.status === undefined ? rows.where('status', '<>', 'deleted') : rows.where('status', '=', query.status);
      if (query.media) rows = rows.where('media', '=', query.media);
      if (query.backupStorage !== undefined) {
        const store = await findBackupStorage(db.read, query.backupStorage);
        rows = rows.where('id', 'in', e => e.selectFrom('replicas').select('image_id').where('backup_storage_id', '=', store.id));
      }
      const page = await pageOf(rows, query);
      return { items: await toImages(db.read, page.rows), next: page.next };
    },
    getImage: async ({ params }) => (await toImages(db.read, [await findImage(db.read, params.ref)]))[0]!,
    importImage: ({ body }, context) => {
      if (body.source.type === 'url') {
        const { username, password } = new URL(body.source.url);
        if (username || password)
          throw new CisternError(
            'BAD_REQUEST',
            'source.url: user and password in a URL are not taken; use a URL that needs none, or download the image and upload it',
          );
      }
      return startOperation(api, importImage, body, context);
    },
    async uploadImage({ params }, { req, res }) {
      const { hostId, taskId } = await uploadTask(params.ref);
      const agent = await fleet.client(hostId);
      const gone = closed(res);
      // the import was accepted a moment ago: its task may still be on the way to the host
      for (const began = performance.now(); ; await delay(50, undefined, { signal: gone })) {
        try {
          await agent.getTask({ params: { id: taskId } });
          break;
        } catch (error) {
          const early =
            error instanceof CisternError && error.code === 'TASK_UNKNOWN' && performance.now() - began < BEGIN_SECONDS * 1000;
          if (!early) throw error;
        }
      }
      const length = req.headers['content-length'];
      return agent.putTaskInput(
        { params: { id: taskId } },
        { stream: req, signal: gone, ...(length !== undefined && { length: Number(length) }) },
      );
    },
    renameImage: ({ params, body }) =>
      db.write(async trx => {
        const image = await findImage(trx, params.ref);
        if (image.status === 'deleted') throw new CisternError('NOT_FOUND', `image ${image.name} is deleted`);
        if (body.name !== image.name) await claimName(trx, 'images', 'image', body.name);
        await trx.updateTable('images').set({ name: body.name }).where('id', '=', image.id).execute();
        return (await toImages(trx, [{ ...image, name: body.name }]))[0]!;
      }),
    verifyImage: ({ params }, context) => startOperation(api, verifyImage, params, context),
    replicateImage: ({ params, body }, context) => startOperation(api, replicateImage, { ...params, ...body }, context),
    deleteReplica: ({ params }, context) => startOperation(api, deleteReplica, params, context),
    deleteImage: ({ params }, context) => startOperation(api, deleteImage, params, context),
  };
}
