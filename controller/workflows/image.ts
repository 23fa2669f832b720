import type { CommandInput, CommandOutput } from '../../shared/commands/index.ts';
import { CisternError } from '../../shared/errors.ts';
import { newId } from '../../shared/id.ts';
import type { ImageFormat, Media, SourceFormat } from '../../shared/model.ts';
import type { Trx } from '../db/database.ts';
import { claimName, findBackupStorage, findImage } from '../db/find.ts';
import { claimLock } from '../operations/claims.ts';
import { discard } from '../operations/garbage.ts';
import type { Run, Workflow } from '../operations/workflow.ts';
import { anyHost, workerFor } from '../policy/placement.ts';
import { chooseStores, poolRef, storeRef } from '../fleet/refs.ts';
import { claimVolume } from './volume.ts';

type Source =
  { type: 'url'; url: string } | { type: 'upload'; size?: number } | { type: 'object'; backupStorage: string; path: string };

export interface ImportRequest {
  name: string;
  media: Media;
  format: ImageFormat;
  source: Source;
  sourceFormat?: SourceFormat;
  sha256?: string;
  backupStorages: string[];
  host?: string;
}

/** What the uploads of `PUT /images/:ref/upload` look for in the plan of a running import. */
export interface ImportPlan {
  imageId: string;
  hostId: string;
  storeIds: string[];
  format: ImageFormat;
  source: Source;
  sourceFormat: SourceFormat | null;
  sha256: string | null;
}

export const IMPORT_STEP = 'import';

/** Takes an image in on some host and publishes it on backup storages. */
export const importImage: Workflow<ImportRequest, ImportPlan> = {
  kind: 'image.import',
  publicInput: request => ({
    ...request,
    source: request.source.type === 'url' ? { type: 'url', url: withoutSecrets(request.source.url) } : request.source,
  }),
  async accept(trx, request, _operationId, services) {
    const source =
      request.source.type === 'object'
        ? { ...request.source, backupStorage: (await findBackupStorage(trx, request.source.backupStorage)).id }
        : request.source;
    const host = await anyHost(trx, services.fleet, request.host);
    const stores = await chooseStores(trx, request.backupStorages);
    const imageId = await claimImage(
      trx,
      request,
      stores.map(store => store.id),
    );
    const plan = {
      imageId,
      hostId: host.id,
      storeIds: stores.map(store => store.id),
      format: request.format,
      source,
      sourceFormat: request.sourceFormat ?? null,
      sha256: request.sha256 ?? null,
    };
    return {
      plan,
      resources: [{ kind: 'image', id: imageId }, ...stores.map(store => ({ kind: 'backup-storage' as const, id: store.id }))],
    };
  },
  async run(op, plan) {
    const { services } = op;
    undoImage(op, plan);
    const input = async (): Promise<CommandInput<'image.import'>> => ({
      image: { id: plan.imageId, format: plan.format },
      source:
        plan.source.type === 'object'
          ? { type: 'object', store: await storeRef(services, plan.source.backupStorage), path: plan.source.path }
          : plan.source.type === 'upload'
            ? { type: 'upload', size: plan.source.size ?? null }
            : plan.source,
      sourceFormat: plan.sourceFormat,
      expectedSha256: plan.sha256,
      stores: await Promise.all(plan.storeIds.map(id => storeRef(services, id))),
    });
    // the bytes of an upload come once: a second task would wait for them in vain
    const done = await op.task(IMPORT_STEP, plan.hostId, 'image.import', input, { resend: plan.source.type !== 'upload' });
    finishImage(op, plan.imageId, done, { sourceFormat: done.sourceFormat, sourceSha256: done.sourceSha256 });
  },
};

interface UploadRequest {
  ref: string;
  name: string;
  media?: 'root' | 'data';
  format: ImageFormat;
  compress: boolean;
  backupStorages: string[];
}
interface UploadPlan {
  imageId: string;
  hostId: string;
  storeIds: string[];
  volumeId: string;
  layerId: string;
  storageId: string;
  format: ImageFormat;
  compress: boolean;
}

/** Makes an image of a volume: flattened, and published on backup storages. */
export const uploadVolume: Workflow<UploadRequest, UploadPlan> = {
  kind: 'volume.upload',
  async accept(trx, request, operationId, services) {
    const volume = await claimVolume(trx, operationId, request.ref);
    if (request.compress && request.format === 'raw')
      throw new CisternError('BAD_REQUEST', 'compress: a raw image cannot be compressed; choose the format qcow2');
    const hostId = await workerFor(trx, services.fleet, { storageId: volume.primary_storage_id, hostId: volume.host_id });
    const stores = await chooseStores(trx, request.backupStorages);
    const storeIds = stores.map(store => store.id);
    const imageId = await claimImage(trx, { ...request, media: request.media ?? volume.kind }, storeIds);
    const plan = {
      imageId,
      hostId,
      storeIds,
      volumeId: volume.id,
      layerId: volume.layer_id,
      storageId: volume.primary_storage_id,
      format: request.format,
      compress: request.compress,
    };
    return {
      plan,
      resources: [
        { kind: 'volume', id: volume.id },
        { kind: 'image', id: imageId },
        ...storeIds.map(id => ({ kind: 'backup-storage' as const, id })),
      ],
    };
  },
  async run(op, plan) {
    undoImage(op, plan);
    const done = await op.task('upload', plan.hostId, 'volume.upload', async () => ({
      pool: await poolRef(op.services, plan.storageId),
      volumeId: plan.volumeId,
      layerId: plan.layerId,
      image: { id: plan.imageId, format: plan.format },
      compress: plan.compress,
      stores: await Promise.all(plan.storeIds.map(id => storeRef(op.services, id))),
    }));
    finishImage(op, plan.imageId, done, {});
  },
};

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

async function claimImage(
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

/** Said before an image is made: how to take back its rows and whatever came to lie on its backup storages. */
function undoImage(op: Run, plan: { imageId: string; hostId: string; storeIds: string[] }): void {
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

function finishImage(op: Run, imageId: string, done: CommandOutput<'volume.upload'>, more: Record<string, unknown>): void {
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

/** A URL without user, password and query (which may be a signature). */
export function withoutSecrets(text: string): string {
  const url = new URL(text);
  url.username = url.password = '';
  if (url.search) url.search = '?...';
  return url.href;
}
