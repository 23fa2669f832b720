import type { CommandInput } from '../../shared/commands/index.ts';
import { CisternError } from '../../shared/errors.ts';
import type { Trx } from '../db/database.ts';
import { findImage } from '../db/find.ts';
import type { Row } from '../db/schema.ts';
import { chooseStores, storeRef } from '../fleet/refs.ts';
import { claimLock } from '../operations/claims.ts';
import { discard, doomedImages } from '../operations/garbage.ts';
import type { Run, Workflow } from '../operations/workflow.ts';
import { anyHost } from '../policy/placement.ts';
import type { Services } from '../services.ts';
import { refuseSamePlace } from './backup-storage.ts';
import { markFaults, markReplica } from './damage.ts';
import { newImageRef } from './image-rows.ts';
import { sourceStores } from './image-sources.ts';

interface ReplicateRequest {
  ref: string;
  backupStorages: string[];
  host?: string;
}

interface ReplicatePlan {
  imageId: string;
  hostId: string;
  /** `mends`: a replica that is damaged or missing is there already, and stays as it is known where this fails. */
  targets: { storeId: string; mends: boolean }[];
}

/** Copies an image to more backup storages, all of them or none, or over replicas that are damaged. */
export const replicateImage: Workflow<ReplicateRequest, ReplicatePlan> = {
  kind: 'image.replicate',
  async accept(trx, request, operationId, services) {
    const image = await findImage(trx, request.ref);
    if (image.status !== 'ready') throw new CisternError('WRONG_STATE', `image ${image.name} is ${image.status}`);
    await claimLock(trx, operationId, `image/${image.id}`, `image ${image.name}`);
    const stores = await chooseStores(trx, request.backupStorages);
    const targets: ReplicatePlan['targets'] = [];
    for (const store of stores) targets.push({ storeId: store.id, mends: await claimReplica(trx, image, store) });
    await sourceStores(trx, image, targets.map(target => target.storeId)); // prettier-ignore
    const host = await anyHost(trx, services.fleet, request.host);
    return {
      plan: { imageId: image.id, hostId: host.id, targets },
      resources: [{ kind: 'image', id: image.id }, ...stores.map(store => ({ kind: 'backup-storage' as const, id: store.id }))],
    };
  },
  async run(op, { imageId, hostId, targets }) {
    const { services } = op;
    const transfers: unknown[] = [];
    for (const [i, { storeId, mends }] of targets.entries()) if (!mends) forgetReplica(op, imageId, storeId, i);
    // one that is its own source would be removed before it is read, and again by the undo
    for (const [i, { storeId }] of targets.entries()) {
      const out = await op.task(`look at the place of replica ${i + 1}`, hostId, 'store.connect', async () => ({
        store: await storeRef(services, storeId),
        others: (await copyInput(services, imageId, targets, storeId)).from,
      }));
      await refuseSamePlace(services, storeId, out.sameAs);
    }
    undoReplicas(op, imageId, hostId, targets);
    for (const [i, { storeId }] of targets.entries()) {
      const done = await op
        .task(`replicate ${i + 1}`, hostId, 'image.copy', () => copyInput(services, imageId, targets, storeId))
        .catch(async (error: unknown) => {
          const faults = error instanceof CisternError ? (error.replicas ?? []) : [];
          if (faults.length > 0) await services.db.write(trx => markFaults(trx, services, imageId, faults));
          throw error;
        });
      await op.tx(`publish replica ${i + 1}`, async trx => {
        await markFaults(trx, services, imageId, done.faults);
        await markReplica(trx, services, imageId, done.storeId, null);
        await markReplica(trx, services, imageId, storeId, null); // one that was damaged is news
        await whereReplica(trx, imageId, storeId).set({ status: 'ready', reason: null }).execute();
      });
      transfers.push({ storeId, fromStoreId: done.storeId, summary: done.transfer });
    }
    op.finish({ imageId, replicas: targets.length, transfers });
  },
};

const whereReplica = (trx: Trx, imageId: string, storeId: string) =>
  trx.updateTable('replicas').where('image_id', '=', imageId).where('backup_storage_id', '=', storeId);

/** Makes the row of a new replica; true where there is one already that may be replaced. */
async function claimReplica(trx: Trx, image: Row<'images'>, store: Row<'backup_storages'>): Promise<boolean> {
  const there = await trx
    .selectFrom('replicas')
    .select('status')
    .where('image_id', '=', image.id)
    .where('backup_storage_id', '=', store.id)
    .executeTakeFirst();
  // it would be removed with that, and a host that was cut off may still be writing there
  if ((await doomedImages(trx, store.id)).has(image.id))
    throw new CisternError(
      'WRONG_STATE',
      `what an earlier operation left of image ${image.name} on ${store.name} is still to be removed`,
      {
        action: 'It goes by itself once its host and the backup storage can be reached; then try again.',
      },
    );
  if (there?.status === 'damaged' || there?.status === 'missing') return true;
  if (there)
    throw new CisternError('WRONG_STATE', `image ${image.name} has a replica on ${store.name} already, which is ${there.status}`);
  const now = new Date().toISOString();
  const row = { image_id: image.id, backup_storage_id: store.id, status: 'creating' as const, created_at: now };
  await trx.insertInto('replicas').values(row).execute();
  return false;
}

/** Takes back the row of a new replica. */
function forgetReplica(op: Run, imageId: string, storeId: string, i: number): void {
  op.undo(`forget replica ${i + 1}`, async () => {
    await op.services.db.write(trx =>
      trx.deleteFrom('replicas').where('image_id', '=', imageId).where('backup_storage_id', '=', storeId).execute(),
    );
  });
}

/** Takes back what came to lie there of new replicas. */
function undoReplicas(op: Run, imageId: string, hostId: string, targets: ReplicatePlan['targets']): void {
  for (const [i, { storeId, mends }] of targets.entries()) {
    if (mends) continue;
    op.undo(`remove replica ${i + 1}`, () => discard(op, hostId, { kind: 'image', storeId, imageId }));
  }
}

async function copyInput(
  services: Services,
  imageId: string,
  targets: ReplicatePlan['targets'],
  storeId: string,
): Promise<CommandInput<'image.copy'>> {
  const image = await findImage(services.db.read, imageId);
  const from = await sourceStores(services.db.read, image, targets.map(target => target.storeId)); // prettier-ignore
  return {
    image: { ...(await newImageRef(services, imageId)), digest: image.digest! },
    from: await Promise.all(from.map(id => storeRef(services, id))),
    to: await storeRef(services, storeId),
  };
}
