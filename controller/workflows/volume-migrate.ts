import { CisternError } from '../../shared/errors.ts';
import type { Reader, Trx } from '../db/database.ts';
import { findHost, findPrimaryStorage } from '../db/find.ts';
import type { Row } from '../db/schema.ts';
import { poolRef } from '../fleet/refs.ts';
import { discard, doomedVolumes, noteWaste, sweepGarbage } from '../operations/garbage.ts';
import { canWait } from '../operations/unsettled.ts';
import type { Run, Workflow } from '../operations/workflow.ts';
import { demandRoom, type PoolKey, reserve } from '../policy/capacity.ts';
import { cacheStatus, workers } from '../policy/placement.ts';
import type { Services } from '../services.ts';
import { adjustAvailable, claimCacheRoom, ensureCached, forgetUnmade } from './cache-entry.ts';
import { claimVolume } from './volume.ts';
import { volumePath } from './volume-create.ts';

interface Request {
  ref: string;
  primaryStorage: string;
  host?: string;
  flatten: boolean;
}

interface Plan {
  volume: { id: string; layerId: string; name: string; kind: 'root' | 'data' };
  from: PoolKey;
  to: PoolKey;
  workerHostId: string;
  /** The image that it goes on standing on; null: it will stand alone. */
  backing: { imageId: string; format: 'qcow2' | 'raw'; digest: string } | null;
  wasAllocated: number;
}

/**
 * Moves a volume that nobody has open to another primary storage, through a host that sees both. It stays what it is on the image that it stands
 * on where both keep volumes as files, and stands alone else. The original goes only once the copy was read back and took its place.
 */
export const migrateVolume: Workflow<Request, Plan> = {
  kind: 'volume.migrate',
  async accept(trx, request, operationId, services) {
    const volume = await claimVolume(trx, operationId, request.ref);
    const [source, target] = [
      await findPrimaryStorage(trx, volume.primary_storage_id),
      await findPrimaryStorage(trx, request.primaryStorage),
    ];
    if (source.id === target.id)
      throw new CisternError('BAD_REQUEST', `volume ${volume.name} is on primary storage ${target.name} already`);
    if (target.state !== 'enabled')
      throw new CisternError('WRONG_STATE', `primary storage ${target.name} is in state ${target.state}`);
    if ((await doomedVolumes(trx, target.id)).has(volume.id))
      throw new CisternError(
        'WRONG_STATE',
        `what an earlier move of volume ${volume.name} left on ${target.name} is still to be removed`,
      );
    const from = { storageId: source.id, hostId: volume.host_id };
    const workerHostId = await hostOfBoth(trx, services, from, target, request.host);
    const to = { storageId: target.id, hostId: target.shared ? '' : workerHostId };
    const image = await baseOf(trx, volume);
    const linked =
      !request.flatten && image?.status === 'ready' && source.volume_format === 'qcow2' && target.volume_format === 'qcow2';
    const status = image && linked ? await cacheStatus(trx, image.id, to) : 'ready';
    const grows = Math.min(volume.size, (volume.allocated ?? volume.size) + (linked ? 0 : (image?.size ?? 0)));
    const physical = grows + (status === undefined ? (image?.size ?? 0) : 0);
    await demandRoom(trx, target, to.hostId, { virtual: volume.size, physical }, services.config.physicalThreshold);
    await reserve(trx, operationId, to, grows);
    if (image && linked && status === undefined) await claimCacheRoom(trx, operationId, to, image);
    const { id, layer_id: layerId, name, kind } = volume;
    return {
      plan: {
        volume: { id, layerId, name, kind },
        from,
        to,
        workerHostId,
        backing: image && linked ? { imageId: image.id, format: image.format, digest: image.digest! } : null,
        wasAllocated: volume.allocated ?? 0,
      },
      resources: [
        { kind: 'volume', id },
        { kind: 'primary-storage', id: source.id },
        { kind: 'primary-storage', id: target.id },
      ],
    };
  },
  async run(op, plan) {
    const { services } = op;
    const { volume, from, to, workerHostId, backing } = plan;
    if (backing) {
      forgetUnmade(op, backing.imageId, to);
      await ensureCached(op, backing.imageId, to, workerHostId);
    }
    op.undo('remove the copy', () =>
      discard(op, workerHostId, { kind: 'volumes', storageId: to.storageId, volumeIds: [volume.id] }),
    );
    const copied = await op.task('copy', workerHostId, 'volume.copy', async () => ({
      from: await poolRef(services, from.storageId),
      to: await poolRef(services, to.storageId),
      volume,
      backing,
    }));
    op.undo('bring the volume back', () => bringBack(op, plan));
    await op.task('take the volume away', workerHostId, 'volume.delete', async () => ({
      pool: await poolRef(services, from.storageId),
      volumeIds: [volume.id],
      unchanged: { layerId: volume.layerId, version: copied.version },
    }));
    await op.tx('put the copy in its place', trx => putInPlace(trx, services, plan, copied));
    // from here on nothing is taken back: what cannot be removed now is removed later
    await op
      .step('remove the original', () => sweepGarbage(services, op.signal(), workerHostId))
      .catch((error: unknown) => services.log.info({ err: error, operation: op.id }, 'the original will be removed later'));
    op.finish({ volumeId: volume.id, primaryStorageId: to.storageId, linked: backing !== null, size: copied.size });
  },
};

/** The host with least to do that sees both pools. */
async function hostOfBoth(
  trx: Trx,
  { fleet }: Services,
  from: PoolKey,
  target: Row<'primary_storages'>,
  ref: string | undefined,
): Promise<string> {
  const wanted = ref === undefined ? undefined : (await findHost(trx, ref)).id;
  const here = await workers(trx, fleet, from.storageId);
  const there = await workers(trx, fleet, target.id);
  const both = here.find(id => there.includes(id) && (from.hostId === '' || from.hostId === id) && (wanted ?? id) === id);
  if (both !== undefined) return both;
  const on = from.hostId === '' ? '' : ` (on host ${(await findHost(trx, from.hostId)).name})`;
  const which = ref === undefined ? 'no connected and enabled host sees' : `host ${ref} is not one that sees`;
  throw new CisternError('NO_HOST', `${which} both primary storage ${target.name} and the one that the volume is on${on}`);
}

const baseOf = (trx: Reader, { image_id }: Row<'volumes'>): Promise<Row<'images'> | undefined> =>
  image_id === null
    ? Promise.resolve(undefined)
    : trx.selectFrom('images').selectAll().where('id', '=', image_id).executeTakeFirst();

async function bringBack(op: Run, { volume, from, workerHostId }: Plan): Promise<void> {
  const waste = { storageId: from.storageId, volumeIds: [volume.id] };
  try {
    await op.task('restore', workerHostId, 'volume.restore', async () => ({
      pool: await poolRef(op.services, from.storageId),
      volumeIds: waste.volumeIds,
    }));
  } catch (error) {
    if (op.signal().aborted || !canWait(error)) throw error;
    // nobody is to work on what may lie in the trash until then
    await op.services.db.write(async trx => {
      await trx.updateTable('volumes').set({ status: 'deleting' }).where('id', '=', volume.id).execute();
      await noteWaste(trx, workerHostId, { kind: 'restore', ...waste, missing: [] });
    });
  }
}

async function putInPlace(
  trx: Trx,
  { events }: Services,
  { volume, from, to, workerHostId, backing, wasAllocated }: Plan,
  { size, allocated }: { size: number; allocated: number },
): Promise<void> {
  const target = await findPrimaryStorage(trx, to.storageId);
  const set = {
    primary_storage_id: to.storageId,
    host_id: to.hostId,
    image_id: backing?.imageId ?? null,
    format: target.volume_format,
    path: volumePath(target, volume.id, volume.layerId),
    size,
    allocated,
  };
  await trx.updateTable('volumes').set(set).where('id', '=', volume.id).execute();
  await noteWaste(trx, workerHostId, { kind: 'volumes', storageId: from.storageId, volumeIds: [volume.id] });
  await adjustAvailable(trx, to, -allocated);
  await adjustAvailable(trx, from, wasAllocated);
  const words = `volume ${volume.name} is on primary storage ${target.name} now`;
  await events.append(trx, 'volume.migrated', { kind: 'volume', id: volume.id }, words);
}
