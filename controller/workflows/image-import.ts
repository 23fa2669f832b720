import type { CommandInput } from '../../shared/commands/index.ts';
import type { ImageFormat, Media, SourceFormat } from '../../shared/model.ts';
import { findBackupStorage } from '../db/find.ts';
import type { Workflow } from '../operations/workflow.ts';
import { anyHost } from '../policy/placement.ts';
import { chooseStores, storeRef } from '../fleet/refs.ts';
import { claimImage, finishImage, newImageRef, undoImage } from './image-rows.ts';

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
      image: await newImageRef(services, plan.imageId),
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
