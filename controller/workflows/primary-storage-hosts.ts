import { CisternError } from '../../shared/errors.ts';
import type { Trx } from '../db/database.ts';
import type { Row } from '../db/schema.ts';
import { markPool } from '../fleet/connect.ts';
import { poolRef } from '../fleet/refs.ts';
import type { Run } from '../operations/workflow.ts';

export type HostRef = Pick<Row<'hosts'>, 'id' | 'name'>;

/** The view of a host that has not connected yet. */
export const NEW_POOL = {
  status: 'connecting' as const,
  reason: null,
  total: null,
  available: null,
  measured_at: null,
  level: 'ok' as const,
};

/** The hosts of clusters that can be asked now; one at least, else NO_HOST. */
export async function connectedHosts(trx: Trx, clusters: Row<'clusters'>[]): Promise<HostRef[]> {
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
export async function connectAll(
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

export async function attach(trx: Trx, storageId: string, clusterId: string): Promise<void> {
  await trx.insertInto('primary_storage_clusters').values({ primary_storage_id: storageId, cluster_id: clusterId }).execute();
  const hosts = await trx.selectFrom('hosts').select('id').where('cluster_id', '=', clusterId).execute();
  for (const host of hosts)
    await trx
      .insertInto('pools')
      .values({ primary_storage_id: storageId, host_id: host.id, ...NEW_POOL })
      .execute();
}

export async function forget(trx: Trx, storageId: string): Promise<void> {
  for (const table of ['pools', 'primary_storage_clusters', 'cache_entries', 'volumes', 'reservations'] as const)
    await trx.deleteFrom(table).where('primary_storage_id', '=', storageId).execute();
  await trx.deleteFrom('primary_storages').where('id', '=', storageId).execute();
}
