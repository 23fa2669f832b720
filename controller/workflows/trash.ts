import { findPrimaryStorage } from '../db/find.ts';
import { poolRef } from '../fleet/refs.ts';
import type { Run, Workflow } from '../operations/workflow.ts';
import { measurePool } from '../policy/measure.ts';
import { workerFor } from '../policy/placement.ts';
import { adjustAvailable } from './cache-entry.ts';

/** Volumes that one task purges. */
const BATCH = 1000;

interface Plan {
  /** What lies in the trash without a row goes too. */
  strays: boolean;
  /** At most BATCH volumes each. */
  groups: { storageId: string; hostId: string; workerHostId: string; volumeIds: string[] }[];
}

/** Purges deleted volumes: all of them now, or with `before` those that went to the trash when controllers had run for so many milliseconds, or earlier. */
export const emptyTrash: Workflow<{ primaryStorage?: string; before?: number }, Plan> = {
  kind: 'trash.empty',
  async accept(trx, request, _operationId, services) {
    const storage = request.primaryStorage === undefined ? undefined : await findPrimaryStorage(trx, request.primaryStorage);
    let query = trx.selectFrom('volumes').select(['id', 'primary_storage_id', 'host_id']).where('status', '=', 'deleted');
    if (request.before !== undefined) query = query.where(e => e.fn.coalesce('deleted_elapsed', e.val(0)), '<=', request.before);
    if (storage) query = query.where('primary_storage_id', '=', storage.id);
    const groups: Plan['groups'] = [];
    const byPool = Map.groupBy(await query.execute(), row => `${row.primary_storage_id}/${row.host_id}`);
    for (const rows of byPool.values()) {
      const pool = { storageId: rows[0]!.primary_storage_id, hostId: rows[0]!.host_id };
      // one pool that is away holds up none of the others
      const workerHostId = await workerFor(trx, services.fleet, pool).catch(error => {
        if (storage) throw error;
        return undefined;
      });
      if (!workerHostId) continue;
      for (let i = 0; i < rows.length; i += BATCH)
        groups.push({ ...pool, workerHostId, volumeIds: rows.slice(i, i + BATCH).map(row => row.id) });
    }
    return {
      plan: { strays: request.before === undefined, groups },
      resources: storage ? [{ kind: 'primary-storage', id: storage.id }] : [],
    };
  },
  async run(op, plan) {
    let volumes = 0;
    let freed = 0;
    const purge = async (i: number, pool: Plan['groups'][number]): Promise<void> => {
      // some of them may have gone; where this fails too the next measurement tells
      op.undo(`see what is left ${i + 1}`, () => measurePool(op.services, pool.storageId, op.signal()));
      const out = await op.task(`purge ${i + 1}`, pool.workerHostId, 'pool.purge', async () => ({
        pool: await poolRef(op.services, pool.storageId),
        volumeIds: pool.volumeIds,
        before: null,
      }));
      await op.tx(`forget ${i + 1}`, async trx => {
        // rows go by what was asked for, not by what was there: a folder that somebody removed by hand is gone as well
        await trx.deleteFrom('volumes').where('status', '=', 'deleted').where('id', 'in', pool.volumeIds).execute();
        await adjustAvailable(trx, pool, out.freed);
      });
      volumes += out.removed.length;
      freed += out.freed;
    };
    for (const [i, pool] of plan.groups.entries()) await purge(i, pool);
    const strays = plan.strays ? await findStrays(op, plan.groups) : [];
    for (const [i, pool] of strays.entries()) await purge(plan.groups.length + i, pool);
    op.finish({ volumes, freed });
  },
};

/** What lies in the trash of these pools without a row. What has one and is not deleted may be on its way back to where it was. */
async function findStrays(op: Run, groups: Plan['groups']): Promise<Plan['groups']> {
  const { db } = op.services;
  const strays: Plan['groups'] = [];
  const pools = new Map(groups.map(group => [`${group.storageId}/${group.hostId}`, group]));
  for (const [i, pool] of [...pools.values()].entries()) {
    const found = await op.task(`look ${i + 1}`, pool.workerHostId, 'pool.usage', async () => ({
      pool: await poolRef(op.services, pool.storageId),
    }));
    const ids = found.trash.map(volume => volume.id);
    const unknown = await op.step(`tell what is not known ${i + 1}`, async () => {
      const known = new Set<string>();
      for (let at = 0; at < ids.length; at += BATCH) {
        const rows = db.read
          .selectFrom('volumes')
          .select('id')
          .where('id', 'in', ids.slice(at, at + BATCH));
        for (const { id } of await rows.execute()) known.add(id);
      }
      return ids.filter(id => !known.has(id));
    });
    for (let at = 0; at < unknown.length; at += BATCH) strays.push({ ...pool, volumeIds: unknown.slice(at, at + BATCH) });
  }
  return strays;
}
