import { CisternError } from '../../shared/errors.ts';
import { elapsedNow } from '../db/elapsed.ts';
import type { Trx } from '../db/database.ts';
import { findPrimaryStorage, findVolume } from '../db/find.ts';
import type { Row } from '../db/schema.ts';
import { claimLock } from '../operations/claims.ts';
import { leaveBehind } from '../operations/garbage.ts';
import { backToWhatTheyWere, canWait, restoredLater } from '../operations/unsettled.ts';
import type { Workflow } from '../operations/workflow.ts';
import { demandRoom } from '../policy/capacity.ts';
import { workerFor } from '../policy/placement.ts';
import { poolRef } from '../fleet/refs.ts';

/** A volume that an operation may work on alone: it is ready (or, where said, missing), and no other operation has its lock. */
export async function claimVolume(trx: Trx, operationId: string, ref: string, also?: 'missing'): Promise<Row<'volumes'>> {
  const volume = await findVolume(trx, ref);
  if (volume.status === 'deleted') throw new CisternError('NOT_FOUND', `volume ${volume.name} is deleted`);
  await claimLock(trx, operationId, `volume/${volume.id}`, `volume ${volume.name}`);
  if (volume.status !== 'ready' && volume.status !== also)
    throw new CisternError('WRONG_STATE', `volume ${volume.name} is ${volume.status}`);
  return volume;
}

interface ResizePlan {
  volumeId: string;
  layerId: string;
  storageId: string;
  workerHostId: string;
  oldSize: number;
  size: number;
}

/** Grows a volume. The new size counts as provisioned from the moment of acceptance. */
export const resizeVolume: Workflow<{ ref: string; size: number }, ResizePlan> = {
  kind: 'volume.resize',
  async accept(trx, request, operationId, services) {
    const volume = await claimVolume(trx, operationId, request.ref);
    if (request.size <= volume.size)
      throw new CisternError(
        'BAD_REQUEST',
        `size: volume ${volume.name} has ${volume.size} bytes already; volumes only grow, since shrinking would cut off data`,
      );
    if (request.size % 512 !== 0)
      throw new CisternError('BAD_REQUEST', `size: ${request.size} bytes are not a whole number of 512-byte sectors`);
    const storage = await findPrimaryStorage(trx, volume.primary_storage_id);
    await demandRoom(
      trx,
      storage,
      volume.host_id,
      { virtual: request.size - volume.size, physical: 0 },
      services.config.physicalThreshold,
    );
    const workerHostId = await workerFor(trx, services.fleet, { storageId: storage.id, hostId: volume.host_id });
    await trx.updateTable('volumes').set({ size: request.size }).where('id', '=', volume.id).execute();
    return {
      plan: {
        volumeId: volume.id,
        layerId: volume.layer_id,
        storageId: storage.id,
        workerHostId,
        oldSize: volume.size,
        size: request.size,
      },
      resources: [{ kind: 'volume', id: volume.id }],
    };
  },
  async run(op, plan) {
    const { db } = op.services;
    const setSize = async (size: number) =>
      void (await db.write(trx => trx.updateTable('volumes').set({ size }).where('id', '=', plan.volumeId).execute()));
    // it may have grown before the work was cut short, and does not shrink again: what a guest would see counts
    op.undo('see what size it has', async () => {
      const { workerHostId, storageId, volumeId, layerId } = plan;
      try {
        const input = async () => ({ pool: await poolRef(op.services, storageId), volumeId, layerId });
        const { size } = await op.task('inspect', workerHostId, 'volume.inspect', input);
        await setSize(size);
      } catch (error) {
        if (op.signal().aborted || !canWait(error)) throw error;
        await leaveBehind(op.services, workerHostId, { kind: 'size', storageId, volumeId, layerId });
      }
    });
    op.undo('keep the old size', () => setSize(plan.oldSize));
    const out = await op.task('resize', plan.workerHostId, 'volume.resize', async () => ({
      pool: await poolRef(op.services, plan.storageId),
      volumeId: plan.volumeId,
      layerId: plan.layerId,
      size: plan.size,
    }));
    op.finish(
      { volumeId: plan.volumeId, size: out.size },
      async trx =>
        void (await trx
          .updateTable('volumes')
          .set({ size: out.size, allocated: out.allocated })
          .where('id', '=', plan.volumeId)
          .execute()),
    );
  },
};

interface DeletePlan {
  groups: { storageId: string; hostId: string; workerHostId: string; volumeIds: string[] }[];
  /** Those whose files were not found before. */
  missing?: string[];
}

/** Moves volumes to the trash of their pools, where they stay for a while. */
export const deleteVolumes: Workflow<{ volumes: string[] }, DeletePlan> = {
  kind: 'volume.delete',
  async accept(trx, request, operationId, services) {
    const groups = new Map<string, DeletePlan['groups'][number]>();
    const missing: string[] = [];
    for (const ref of new Set(request.volumes)) {
      const volume = await claimVolume(trx, operationId, ref, 'missing');
      const key = `${volume.primary_storage_id}/${volume.host_id}`;
      let group = groups.get(key);
      if (!group) {
        const pool = { storageId: volume.primary_storage_id, hostId: volume.host_id };
        group = { ...pool, workerHostId: await workerFor(trx, services.fleet, pool), volumeIds: [] };
        groups.set(key, group);
      }
      group.volumeIds.push(volume.id);
      if (volume.status === 'missing') missing.push(volume.id);
    }
    const plan = { groups: [...groups.values()], missing };
    const ids = plan.groups.flatMap(group => group.volumeIds);
    await trx.updateTable('volumes').set({ status: 'deleting' }).where('id', 'in', ids).execute();
    return { plan, resources: ids.map(id => ({ kind: 'volume', id })) };
  },
  async run(op, plan) {
    const { db } = op.services;
    const deleting = async (volumeIds: string[]): Promise<string[]> => {
      const rows = db.read.selectFrom('volumes').select('id').where('id', 'in', volumeIds).where('status', '=', 'deleting');
      return (await rows.execute()).map(row => row.id);
    };
    op.undo('keep the volumes', async () => {
      const later = await restoredLater(db.read);
      const ids = (await deleting(plan.groups.flatMap(group => group.volumeIds))).filter(id => !later.has(id));
      if (ids.length > 0) await db.write(trx => backToWhatTheyWere(trx, ids, plan.missing));
    });
    // the work may have been cut short with some of them in the trash
    for (const [i, { storageId, workerHostId, volumeIds: all }] of plan.groups.entries())
      op.undo(`bring back ${i + 1}`, async () => {
        const volumeIds = await deleting(all);
        if (volumeIds.length === 0) return;
        try {
          const input = async () => ({ pool: await poolRef(op.services, storageId), volumeIds });
          await op.task('restore', workerHostId, 'volume.restore', input);
        } catch (error) {
          if (op.signal().aborted || !canWait(error)) throw error;
          await leaveBehind(op.services, workerHostId, { kind: 'restore', storageId, volumeIds, missing: plan.missing ?? [] });
        }
      });
    for (const [i, group] of plan.groups.entries()) {
      await op.task(`trash ${i + 1}`, group.workerHostId, 'volume.delete', async () => ({
        pool: await poolRef(op.services, group.storageId),
        volumeIds: group.volumeIds,
      }));
      await op.tx(
        `mark ${i + 1} as deleted`,
        async trx =>
          void (await trx
            .updateTable('volumes')
            .set({ status: 'deleted', deleted_at: new Date().toISOString(), deleted_elapsed: elapsedNow() })
            .where('id', 'in', group.volumeIds)
            .execute()),
      );
    }
    op.finish({ volumes: plan.groups.flatMap(group => group.volumeIds) });
  },
};
