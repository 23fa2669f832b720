import { findPrimaryStorage } from '../db/find.ts';
import { poolRef } from '../fleet/refs.ts';
import type { Workflow } from '../operations/workflow.ts';
import { workerFor } from '../policy/placement.ts';
import { adjustAvailable } from './cache-entry.ts';

interface Plan {
  before: string;
  pools: { storageId: string; hostId: string; workerHostId: string }[];
}

/** Purges deleted volumes: all of them now, or with `before` those that have been in the trash for long enough. */
export const emptyTrash: Workflow<{ primaryStorage?: string; before?: string }, Plan> = {
  kind: 'trash.empty',
  async accept(trx, request, _operationId, services) {
    const before = request.before ?? new Date().toISOString();
    const storage = request.primaryStorage === undefined ? undefined : await findPrimaryStorage(trx, request.primaryStorage);
    let query = trx
      .selectFrom('volumes')
      .select(['primary_storage_id', 'host_id'])
      .distinct()
      .where('status', '=', 'deleted')
      .where('deleted_at', '<=', before);
    if (storage) query = query.where('primary_storage_id', '=', storage.id);
    const pools: Plan['pools'] = [];
    for (const row of await query.execute()) {
      const pool = { storageId: row.primary_storage_id, hostId: row.host_id };
      // one pool that is away holds up none of the others
      const workerHostId = await workerFor(trx, services.fleet, pool).catch(error => {
        if (storage) throw error;
        return undefined;
      });
      if (workerHostId) pools.push({ ...pool, workerHostId });
    }
    return { plan: { before, pools }, resources: storage ? [{ kind: 'primary-storage', id: storage.id }] : [] };
  },
  async run(op, plan) {
    let volumes = 0;
    let freed = 0;
    for (const [i, pool] of plan.pools.entries()) {
      const out = await op.task(`purge ${i + 1}`, pool.workerHostId, 'pool.purge', async () => ({
        pool: await poolRef(op.services, pool.storageId),
        before: plan.before,
      }));
      await op.tx(`forget ${i + 1}`, async trx => {
        // rows go by what was asked for, not by what was there: a folder that somebody removed by hand is gone as well
        await trx
          .deleteFrom('volumes')
          .where('status', '=', 'deleted')
          .where('deleted_at', '<=', plan.before)
          .where('primary_storage_id', '=', pool.storageId)
          .where('host_id', '=', pool.hostId)
          .execute();
        await adjustAvailable(trx, pool, out.freed);
      });
      volumes += out.removed.length;
      freed += out.freed;
    }
    op.finish({ volumes, freed });
  },
};
