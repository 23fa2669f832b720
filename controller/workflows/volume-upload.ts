import { CisternError } from '../../shared/errors.ts';
import type { ImageFormat } from '../../shared/model.ts';
import type { Workflow } from '../operations/workflow.ts';
import { workerFor } from '../policy/placement.ts';
import { chooseStores, poolRef, storeRef } from '../fleet/refs.ts';
import { onSoundImage } from './cache-entry.ts';
import { claimVolume } from './volume.ts';
import { claimImage, finishImage, newImageRef, undoImage } from './image-rows.ts';

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
  /** As in the pool's row: '' where all hosts see one. */
  poolHostId: string;
  /** The image that the volume stands on. */
  baseId: string | null;
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
      poolHostId: volume.host_id,
      baseId: volume.image_id,
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
    const pool = { storageId: plan.storageId, hostId: plan.poolHostId };
    const done = await onSoundImage(op, plan.baseId, pool, plan.hostId, again =>
      op.task(`upload${again}`, plan.hostId, 'volume.upload', async () => ({
        pool: await poolRef(op.services, plan.storageId),
        volumeId: plan.volumeId,
        layerId: plan.layerId,
        image: await newImageRef(op.services, plan.imageId),
        compress: plan.compress,
        stores: await Promise.all(plan.storeIds.map(id => storeRef(op.services, id))),
      })),
    );
    finishImage(op, plan.imageId, done, {});
  },
};
