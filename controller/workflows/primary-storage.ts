import { CisternError } from '../../shared/errors.ts';
import { newId } from '../../shared/id.ts';
import type { Trx } from '../db/database.ts';
import { claimName, findCluster, findHost, findPrimaryStorage } from '../db/find.ts';
import type { Row } from '../db/schema.ts';
import { connectPool, markPool } from '../fleet/connect.ts';
import { driverFacts, poolRef, withoutSecrets } from '../fleet/refs.ts';
import { claimLock } from '../operations/claims.ts';
import type { Run, Workflow } from '../operations/workflow.ts';
import { workers } from '../policy/placement.ts';
import { measurePool } from '../policy/measure.ts';

interface AddRequest {
  name: string;
  type: string;
  config: Record<string, unknown>;
  clusters: string[];
  overcommit: number;
}
type HostRef = Pick<Row<'hosts'>, 'id' | 'name'>;
interface AddPlan {
  storageId: string;
  hosts: HostRef[];
}

const NEW_POOL = { status: 'connecting' as const, reason: null, total: null, available: null, measured_at: null };

/** The hosts of clusters that can be asked now; one at least, else NO_HOST. */
async function connectedHosts(trx: Trx, clusters: Row<'clusters'>[]): Promise<HostRef[]> {
  const hosts = await trx
    .selectFrom('hosts')
    .select(['id', 'name'])
    .where(
      'cluster_id',
      'in',
      clusters.map(cluster => cluster.id),
    )
    .where('status', '=', 'connected')
    .where('state', '<>', 'disabled')
    .orderBy('name')
    .execute();
  if (hosts.length === 0)
    throw new CisternError('NO_HOST', `no host of ${clusters.map(cluster => cluster.name).join(', ')} is connected`);
  return hosts;
}

/** Connects hosts to a storage; the first one makes it a pool where it is a fresh place. Throws only where none of them could. */
async function connectAll(
  op: Run,
  storage: { id: string; shared: boolean },
  hosts: HostRef[],
  initialize: boolean,
): Promise<{ connected: string[]; failed: { hostId: string; reason: string }[] }> {
  const connected: string[] = [];
  const failed: { hostId: string; reason: string }[] = [];
  let first: unknown;
  for (const [i, { id: hostId, name }] of hosts.entries()) {
    op.undo(`disconnect ${name}`, async () => {
      // a host that had not connected has nothing to forget
      await op
        .task('disconnect', hostId, 'pool.disconnect', async () => ({
          pool: await poolRef(op.services, storage.id),
          forget: initialize && (i === 0 || !storage.shared),
        }))
        .catch(error => {
          if (op.signal().aborted) throw error;
          op.services.log.warn(
            { err: error, hostId, storageId: storage.id },
            'a host could not be disconnected from a storage that was not added',
          );
        });
    });
    try {
      const fresh = initialize && (!storage.shared || connected.length === 0);
      const out = await op.task(`connect ${name}`, hostId, 'pool.connect', async () => ({
        pool: await poolRef(op.services, storage.id),
        initialize: fresh,
      }));
      await op.tx(`mark ${name} as connected`, trx => markPool(trx, op.services, storage.id, hostId, out.capacity, null));
      connected.push(hostId);
    } catch (error) {
      if (op.signal().aborted) throw error;
      first ??= error;
      failed.push({ hostId, reason: (error as Error).message });
      await op.tx(`mark ${name} as disconnected`, trx =>
        markPool(trx, op.services, storage.id, hostId, null, (error as Error).message),
      );
    }
  }
  if (connected.length === 0) throw first;
  return { connected, failed };
}

/** Adds a primary storage: the hosts of its clusters connect, and what a host says of its settings is the judge. */
export const addPrimaryStorage: Workflow<AddRequest, AddPlan> = {
  kind: 'primary-storage.add',
  publicInput: ({ name, type, clusters, overcommit }) => ({ name, type, clusters, overcommit }),
  async accept(trx, request, _operationId, services) {
    await claimName(trx, 'primary_storages', 'primary storage', request.name);
    const clusters: Row<'clusters'>[] = [];
    for (const ref of new Set(request.clusters)) clusters.push(await findCluster(trx, ref));
    const hosts = await connectedHosts(trx, clusters);
    const driver = await driverFacts(trx, 'primary', request.type);
    const id = newId();
    await trx
      .insertInto('primary_storages')
      .values({
        id,
        name: request.name,
        type: request.type,
        shared: driver.shared ? 1 : 0,
        config_json: JSON.stringify(withoutSecrets(driver, request.config)),
        config_sealed: services.secrets.seal(request.config),
        overcommit: request.overcommit,
        state: 'enabled',
        created_at: new Date().toISOString(),
      })
      .execute();
    for (const cluster of clusters) await attach(trx, id, cluster.id);
    return { plan: { storageId: id, hosts }, resources: [{ kind: 'primary-storage', id }] };
  },
  async run(op, plan) {
    op.undo('forget the primary storage', () => op.services.db.write(trx => forget(trx, plan.storageId)));
    const row = await op.step('read', async () => {
      const storage = await findPrimaryStorage(op.services.db.read, plan.storageId);
      return { id: storage.id, shared: storage.shared === 1 };
    });
    const { connected, failed } = await connectAll(op, row, plan.hosts, true);
    op.finish({ primaryStorageId: plan.storageId, connected, failed });
  },
};

async function attach(trx: Trx, storageId: string, clusterId: string): Promise<void> {
  await trx.insertInto('primary_storage_clusters').values({ primary_storage_id: storageId, cluster_id: clusterId }).execute();
  const hosts = await trx.selectFrom('hosts').select('id').where('cluster_id', '=', clusterId).execute();
  for (const host of hosts)
    await trx
      .insertInto('pools')
      .values({ primary_storage_id: storageId, host_id: host.id, ...NEW_POOL })
      .execute();
}

async function forget(trx: Trx, storageId: string): Promise<void> {
  for (const table of ['pools', 'primary_storage_clusters', 'cache_entries', 'volumes', 'reservations'] as const)
    await trx.deleteFrom(table).where('primary_storage_id', '=', storageId).execute();
  await trx.deleteFrom('primary_storages').where('id', '=', storageId).execute();
}

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

/** Connects every host again and measures what the pool holds. */
export const refreshPrimaryStorage: Workflow<{ ref: string }, AddPlan> = {
  kind: 'primary-storage.refresh',
  async accept(trx, request) {
    const storage = await findPrimaryStorage(trx, request.ref);
    const hosts = await trx
      .selectFrom('pools')
      .innerJoin('hosts', 'hosts.id', 'pools.host_id')
      .select(['hosts.id', 'hosts.name'])
      .where('pools.primary_storage_id', '=', storage.id)
      .where('hosts.status', '=', 'connected')
      .execute();
    if (hosts.length === 0) throw new CisternError('NO_HOST', `no host of primary storage ${storage.name} is connected`);
    return { plan: { storageId: storage.id, hosts }, resources: [{ kind: 'primary-storage', id: storage.id }] };
  },
  async run(op, plan) {
    await op.step(
      'connect',
      async () =>
        void (await Promise.all(plan.hosts.map(host => connectPool(op.services, plan.storageId, host.id, op.signal())))),
    );
    await op.step('measure', () => measurePool(op.services, plan.storageId, op.signal()));
    op.finish({ primaryStorageId: plan.storageId });
  },
};

/** Removes a primary storage without volumes from cistern: its cache and trash go, the hosts unmount it. */
export const deletePrimaryStorage: Workflow<
  { ref: string },
  { storageId: string; shared: boolean; hosts: HostRef[]; oldState: 'enabled' | 'maintenance' | 'disabled' }
> = {
  kind: 'primary-storage.delete',
  async accept(trx, request, operationId, services) {
    const storage = await findPrimaryStorage(trx, request.ref);
    await claimLock(trx, operationId, `primary-storage/${storage.id}`, `primary storage ${storage.name}`);
    const volumes = await trx
      .selectFrom('volumes')
      .select('name')
      .where('primary_storage_id', '=', storage.id)
      .where('status', '<>', 'deleted')
      .limit(3)
      .execute();
    if (volumes.length > 0)
      throw new CisternError(
        'IN_USE',
        `volumes lie on primary storage ${storage.name}: ${volumes.map(row => row.name).join(', ')}`,
      );
    const busy = await trx
      .selectFrom('cache_entries')
      .select('image_id')
      .where('primary_storage_id', '=', storage.id)
      .where('status', '<>', 'ready')
      .limit(1)
      .executeTakeFirst();
    if (busy) throw new CisternError('WRONG_STATE', `the image cache of primary storage ${storage.name} is being worked on`);
    const hosts: HostRef[] = [];
    for (const id of await workers(trx, services.fleet, storage.id)) hosts.push({ id, name: (await findHost(trx, id)).name });
    await trx.updateTable('primary_storages').set({ state: 'disabled' }).where('id', '=', storage.id).execute();
    return {
      plan: { storageId: storage.id, shared: storage.shared === 1, hosts, oldState: storage.state },
      resources: [{ kind: 'primary-storage', id: storage.id }],
    };
  },
  async run(op, plan) {
    const { db } = op.services;
    op.undo(
      'keep the primary storage',
      async () =>
        void (await db.write(trx =>
          trx.updateTable('primary_storages').set({ state: plan.oldState }).where('id', '=', plan.storageId).execute(),
        )),
    );
    for (const [i, { id: hostId, name }] of plan.hosts.entries()) {
      if (plan.shared && i > 0) break;
      await op.task(`empty the trash on ${name}`, hostId, 'pool.purge', async () => ({
        pool: await poolRef(op.services, plan.storageId),
        before: new Date().toISOString(),
      }));
      const cached = await op.step(`list the cache on ${name}`, async () =>
        (
          await db.read
            .selectFrom('cache_entries')
            .select('image_id')
            .where('primary_storage_id', '=', plan.storageId)
            .where('host_id', '=', plan.shared ? '' : hostId)
            .execute()
        ).map(row => row.image_id),
      );
      for (const imageId of cached)
        await op.task(`evict ${imageId} on ${name}`, hostId, 'cache.evict', async () => ({
          pool: await poolRef(op.services, plan.storageId),
          imageId,
        }));
    }
    for (const [i, { id: hostId, name }] of plan.hosts.toReversed().entries()) {
      // the last host to leave takes pool.json with it
      const forgetIt = !plan.shared || i === plan.hosts.length - 1;
      await op.task(`disconnect ${name}`, hostId, 'pool.disconnect', async () => ({
        pool: await poolRef(op.services, plan.storageId),
        forget: forgetIt,
      }));
    }
    op.finish({ primaryStorageId: plan.storageId }, trx => forget(trx, plan.storageId));
  },
};
