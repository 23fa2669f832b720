import { CisternError } from '../../shared/errors.ts';
import { newId } from '../../shared/id.ts';
import type { PoolCapacity } from '../../shared/model.ts';
import { claimName, findCluster, findPrimaryStorage } from '../db/find.ts';
import type { Row } from '../db/schema.ts';
import { connectPool } from '../fleet/connect.ts';
import { driverFacts, withoutSecrets } from '../fleet/refs.ts';
import type { Workflow } from '../operations/workflow.ts';
import { poolCapacity } from '../policy/capacity.ts';
import { measurePool } from '../policy/measure.ts';
import { attach, connectAll, connectedHosts, forget, type HostRef } from './primary-storage-hosts.ts';

interface AddRequest {
  name: string;
  /** Of a pool that exists already. */
  id?: string;
  type: string;
  config: Record<string, unknown>;
  clusters: string[];
  overcommit: number;
}

interface AddPlan {
  storageId: string;
  hosts: HostRef[];
  /** It exists already, and is not to be made. */
  exists?: boolean;
  /** What may be shown of the settings. */
  shown?: Record<string, unknown>;
}

/** Adds a primary storage: the hosts of its clusters connect, and what a host says of its settings is the judge. */
export const addPrimaryStorage: Workflow<AddRequest, AddPlan> = {
  kind: 'primary-storage.add',
  async accept(trx, request, _operationId, services) {
    await claimName(trx, 'primary_storages', 'primary storage', request.name);
    const clusters: Row<'clusters'>[] = [];
    for (const ref of new Set(request.clusters)) clusters.push(await findCluster(trx, ref));
    const hosts = await connectedHosts(trx, clusters);
    const driver = await driverFacts(trx, 'primary', request.type);
    const id = request.id ?? newId();
    const taken = await trx.selectFrom('primary_storages').select('name').where('id', '=', id).executeTakeFirst();
    if (taken) throw new CisternError('IN_USE', `${id} is the id of primary storage ${taken.name}`);
    await trx
      .insertInto('primary_storages')
      .values({
        id,
        name: request.name,
        type: request.type,
        shared: driver.shared ? 1 : 0,
        // shown once a host has taken it: until then it may hold anything
        config_json: '{}',
        config_sealed: services.secrets.seal(request.config, `primary_storages.config_sealed/${id}`),
        overcommit: request.overcommit,
        ...(driver.volumes && { volume_format: driver.volumes.format, volume_path: driver.volumes.path }),
        state: 'enabled',
        created_at: new Date().toISOString(),
      })
      .execute();
    for (const cluster of clusters) await attach(trx, id, cluster.id);
    const shown = withoutSecrets(driver, request.config);
    return {
      plan: { storageId: id, hosts, shown, exists: request.id !== undefined },
      resources: [{ kind: 'primary-storage', id }],
    };
  },
  async run(op, plan) {
    op.undo('forget the primary storage', () => op.services.db.write(trx => forget(trx, plan.storageId)));
    const row = await op.step('read', async () => {
      const storage = await findPrimaryStorage(op.services.db.read, plan.storageId);
      return { id: storage.id, shared: storage.shared === 1 };
    });
    const { connected, failed } = await connectAll(op, row, plan.hosts, plan.exists !== true);
    op.finish({ primaryStorageId: plan.storageId, connected, failed }, async trx => {
      const config_json = JSON.stringify(plan.shown);
      await trx.updateTable('primary_storages').set({ config_json }).where('id', '=', plan.storageId).execute();
    });
  },
};

/** Bytes by which what is measured differs from what was known: what guests have written since, or what somebody else did. */
const driftOf = (known: Partial<PoolCapacity>, measured: Partial<PoolCapacity> & { hostId: string }) => ({
  ...(measured.hostId !== '' && { hostId: measured.hostId }),
  ...Object.fromEntries(
    (['available', 'volumes', 'cache', 'trash'] as const).map(kind => [kind, (measured[kind] ?? 0) - (known[kind] ?? 0)]),
  ),
});

/** Connects every host again and measures what the pool holds. */
export const refreshPrimaryStorage: Workflow<{ ref: string }, AddPlan> = {
  kind: 'primary-storage.refresh',
  async accept(trx, request) {
    const storage = await findPrimaryStorage(trx, request.ref);
    if (storage.state === 'maintenance')
      throw new CisternError('WRONG_STATE', `primary storage ${storage.name} is in maintenance`);
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
    const { db } = op.services;
    const capacity = async () => {
      const storage = await findPrimaryStorage(db.read, plan.storageId);
      const parts = storage.shared ? [''] : plan.hosts.map(host => host.id);
      return Promise.all(parts.map(async hostId => ({ hostId, ...(await poolCapacity(db.read, storage, hostId)) })));
    };
    const known = await op.step('see what is known', capacity);
    await op.step('measure', () => measurePool(op.services, plan.storageId, op.signal()));
    const measured = await op.step('see what was measured', capacity);
    op.finish({ primaryStorageId: plan.storageId, drift: measured.map((part, i) => driftOf(known[i]!, part)) });
  },
};
