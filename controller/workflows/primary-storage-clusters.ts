import { CisternError } from '../../shared/errors.ts';
import type { Trx } from '../db/database.ts';
import { findCluster, findPrimaryStorage } from '../db/find.ts';
import { poolRef } from '../fleet/refs.ts';
import { claimLock } from '../operations/claims.ts';
import type { Workflow } from '../operations/workflow.ts';
import { attach, connectAll, connectedHosts, type HostRef } from './primary-storage-hosts.ts';

interface ClusterRequest {
  ref: string;
  cluster: string;
}

interface ClusterPlan {
  storageId: string;
  clusterId: string;
  shared: boolean;
  hosts: HostRef[];
}

/** Attaches a primary storage to one more cluster. */
export const attachPrimaryStorage: Workflow<ClusterRequest, ClusterPlan> = {
  kind: 'primary-storage.attach',
  async accept(trx, request, operationId) {
    const storage = await findPrimaryStorage(trx, request.ref);
    await claimLock(trx, operationId, `primary-storage/${storage.id}`, `primary storage ${storage.name}`);
    const cluster = await findCluster(trx, request.cluster);
    const already = await trx
      .selectFrom('primary_storage_clusters')
      .select('cluster_id')
      .where('primary_storage_id', '=', storage.id)
      .where('cluster_id', '=', cluster.id)
      .executeTakeFirst();
    if (already)
      throw new CisternError('WRONG_STATE', `primary storage ${storage.name} is attached to cluster ${cluster.name} already`);
    const hosts = await connectedHosts(trx, [cluster]);
    await attach(trx, storage.id, cluster.id);
    return {
      plan: { storageId: storage.id, clusterId: cluster.id, shared: storage.shared === 1, hosts },
      resources: [
        { kind: 'primary-storage', id: storage.id },
        { kind: 'cluster', id: cluster.id },
      ],
    };
  },
  async run(op, plan) {
    op.undo('detach', () => op.services.db.write(trx => detach(trx, plan)));
    const { connected, failed } = await connectAll(op, { id: plan.storageId, shared: plan.shared }, plan.hosts, !plan.shared);
    op.finish({ connected, failed });
  },
};

async function detach(trx: Trx, plan: { storageId: string; clusterId: string }): Promise<void> {
  await trx
    .deleteFrom('primary_storage_clusters')
    .where('primary_storage_id', '=', plan.storageId)
    .where('cluster_id', '=', plan.clusterId)
    .execute();
  await trx
    .deleteFrom('pools')
    .where('primary_storage_id', '=', plan.storageId)
    .where('host_id', 'in', e => e.selectFrom('hosts').select('id').where('cluster_id', '=', plan.clusterId))
    .execute();
}

/** Detaches a primary storage from a cluster; a local one only where no volume lies on the cluster's hosts. */
export const detachPrimaryStorage: Workflow<ClusterRequest, ClusterPlan> = {
  kind: 'primary-storage.detach',
  async accept(trx, request, operationId) {
    const storage = await findPrimaryStorage(trx, request.ref);
    await claimLock(trx, operationId, `primary-storage/${storage.id}`, `primary storage ${storage.name}`);
    const cluster = await findCluster(trx, request.cluster);
    const attached = await trx
      .selectFrom('primary_storage_clusters')
      .select('cluster_id')
      .where('primary_storage_id', '=', storage.id)
      .execute();
    if (!attached.some(row => row.cluster_id === cluster.id))
      throw new CisternError('WRONG_STATE', `primary storage ${storage.name} is not attached to cluster ${cluster.name}`);
    if (attached.length === 1)
      throw new CisternError('IN_USE', `${cluster.name} is the only cluster of primary storage ${storage.name}`, {
        action: 'Attach it to another cluster first, or delete the primary storage.',
      });
    const hosts = await trx.selectFrom('hosts').select(['id', 'name', 'status']).where('cluster_id', '=', cluster.id).execute();
    const ids = hosts.map(host => host.id);
    const volumes =
      ids.length === 0
        ? []
        : await trx
            .selectFrom('volumes')
            .select('name')
            .where('primary_storage_id', '=', storage.id)
            .where('host_id', 'in', ids)
            .limit(3)
            .execute();
    if (volumes.length > 0) throw new CisternError('IN_USE', `volumes lie there: ${volumes.map(row => row.name).join(', ')}`);
    return {
      plan: {
        storageId: storage.id,
        clusterId: cluster.id,
        shared: storage.shared === 1,
        hosts: hosts.filter(host => host.status === 'connected').map(({ id, name }) => ({ id, name })),
      },
      resources: [
        { kind: 'primary-storage', id: storage.id },
        { kind: 'cluster', id: cluster.id },
      ],
    };
  },
  async run(op, plan) {
    for (const host of plan.hosts)
      await op.task(`disconnect ${host.name}`, host.id, 'pool.disconnect', async () => ({
        pool: await poolRef(op.services, plan.storageId),
        forget: false,
      }));
    op.finish({}, trx => detach(trx, plan));
  },
};
