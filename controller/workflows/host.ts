import { CisternError } from '../../shared/errors.ts';
import { newId } from '../../shared/id.ts';
import type { State } from '../../shared/model.ts';
import { refusePlain } from '../../shared/tls/client.ts';
import { findHost } from '../db/find.ts';
import { connectHost, connectPools, markHostDown } from '../fleet/connect.ts';
import { poolRef } from '../fleet/refs.ts';
import { claimLock, refuseVolumes } from '../operations/claims.ts';
import type { Workflow } from '../operations/workflow.ts';
import { insertHost } from './host-rows.ts';

interface AddRequest {
  name: string;
  url: string;
  token: string;
  cluster: string;
}

/** Adds a host: its agent must answer and take the token, and is told where to report. */
export const addHost: Workflow<AddRequest, { hostId: string; newClusterId: string | null }> = {
  kind: 'host.add',
  async accept(trx, request, _operationId, services) {
    const hostId = newId();
    const url = request.url.replace(/\/+$/, '');
    refusePlain(url);
    const newClusterId = await insertHost(trx, services, { ...request, id: hostId, url, status: 'connecting', reason: null });
    return { plan: { hostId, newClusterId }, resources: [{ kind: 'host', id: hostId }] };
  },
  async run(op, plan) {
    const { services } = op;
    op.undo('forget the host', async () => {
      await services.db.write(async trx => {
        await trx.deleteFrom('pools').where('host_id', '=', plan.hostId).execute();
        await trx.deleteFrom('hosts').where('id', '=', plan.hostId).execute();
        if (plan.newClusterId === null) return;
        const used = await trx.selectFrom('hosts').select('id').where('cluster_id', '=', plan.newClusterId).executeTakeFirst();
        const attached = await trx
          .selectFrom('primary_storage_clusters')
          .select('cluster_id')
          .where('cluster_id', '=', plan.newClusterId)
          .executeTakeFirst();
        if (!used && !attached) await trx.deleteFrom('clusters').where('id', '=', plan.newClusterId).execute();
      });
      services.fleet.forget(plan.hostId);
    });
    await op.step('connect', async () => {
      try {
        await connectHost(services, plan.hostId);
      } catch (error) {
        if (error instanceof CisternError && error.code === 'UNAUTHORIZED')
          throw new CisternError('HOST_REFUSED', `the agent refused the token: ${error.message}`);
        throw error;
      }
    });
    await op.step('connect pools', () => connectPools(services, plan.hostId, op.signal()));
    op.finish({ hostId: plan.hostId });
  },
};

/** Connects to a host's agent and to its pools again. */
export const reconnectHost: Workflow<{ ref: string }, { hostId: string }> = {
  kind: 'host.reconnect',
  async accept(trx, request) {
    const host = await findHost(trx, request.ref);
    return { plan: { hostId: host.id }, resources: [{ kind: 'host', id: host.id }] };
  },
  async run(op, plan) {
    await op.step('connect', async () => {
      try {
        await connectHost(op.services, plan.hostId);
      } catch (error) {
        await markHostDown(op.services, plan.hostId, error);
        throw error;
      }
    });
    await op.step('connect pools', () => connectPools(op.services, plan.hostId, op.signal()));
    op.finish({ hostId: plan.hostId });
  },
};

/** Removes a host. Refused while volumes lie on its local pools; a host that is gone for good can be removed all the same. */
export const removeHost: Workflow<
  { ref: string },
  { hostId: string; oldState: State; connected: boolean; storages: { id: string; name: string }[] }
> = {
  kind: 'host.remove',
  async accept(trx, request, operationId, services) {
    const host = await findHost(trx, request.ref);
    // its agent would go on, and nobody could take back what it makes
    const atWork = host.status === 'connected' ? services.fleet.operationsOn(host.id) : [];
    if (atWork.length > 0)
      throw new CisternError('IN_USE', `host ${host.name} works for operations: ${atWork.slice(0, 3).join(', ')}`, {
        action: 'Set it to maintenance so that it gets no new work, wait for its operations or cancel them, then remove it.',
      });
    await claimLock(trx, operationId, `host/${host.id}`, `host ${host.name}`);
    await refuseVolumes(trx, 'host_id', host.id, `local pools of host ${host.name}`);
    const storages = await trx
      .selectFrom('pools')
      .innerJoin('primary_storages as p', 'p.id', 'primary_storage_id')
      .select(['p.id', 'p.name'])
      .where('host_id', '=', host.id)
      .execute();
    await trx.updateTable('hosts').set({ state: 'disabled' }).where('id', '=', host.id).execute();
    return {
      plan: { hostId: host.id, oldState: host.state, connected: host.status === 'connected', storages },
      resources: [{ kind: 'host', id: host.id }],
    };
  },
  async run(op, plan) {
    const { db, fleet } = op.services;
    op.undo('keep the host', async () => {
      await db.write(trx => trx.updateTable('hosts').set({ state: plan.oldState }).where('id', '=', plan.hostId).execute());
    });
    if (plan.connected) {
      for (const storage of plan.storages) {
        await op.task(`disconnect ${storage.name}`, plan.hostId, 'pool.disconnect', async () => ({
          pool: await poolRef(op.services, storage.id),
          forget: false,
        }));
      }
    }
    op.finish({ hostId: plan.hostId }, async trx => {
      await trx.deleteFrom('volumes').where('host_id', '=', plan.hostId).execute();
      await trx.deleteFrom('cache_entries').where('host_id', '=', plan.hostId).execute();
      await trx.deleteFrom('pools').where('host_id', '=', plan.hostId).execute();
      await trx.deleteFrom('hosts').where('id', '=', plan.hostId).execute();
      fleet.forget(plan.hostId);
    });
  },
};
