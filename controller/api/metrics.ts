import type { Services } from '../services.ts';
import { toPrimaryStorage } from './views.ts';

const LEVELS = ['ok', 'warn', 'stop'];

/** The metrics page: counters as they are, and gauges of the fleet as the database has it now. */
export async function scrape({ db, metrics, recovery }: Services): Promise<string> {
  const hosts = await db.read.selectFrom('hosts').select(['id', 'name', 'status', 'state']).execute();
  const nameOf = new Map(hosts.map(host => [host.id, host.name]));
  metrics.recovery.set(recovery.current() ? 1 : 0);
  metrics.hosts.reset();
  for (const host of hosts) metrics.hosts.inc({ status: host.status, state: host.state });
  metrics.poolBytes.reset();
  metrics.poolLevel.reset();
  metrics.poolConnected.reset();
  for (const row of await db.read.selectFrom('primary_storages').selectAll().execute()) {
    const storage = await toPrimaryStorage(db.read, row);
    const parts = storage.shared
      ? [{ host: '', capacity: storage.capacity }]
      : storage.hosts.map(part => ({ host: nameOf.get(part.hostId) ?? part.hostId, capacity: part.capacity }));
    for (const { host, capacity } of parts) {
      if (!capacity) continue;
      metrics.poolLevel.set({ primary_storage: storage.name, host }, LEVELS.indexOf(capacity.level));
      for (const kind of ['total', 'available', 'provisioned', 'reserved', 'volumes', 'cache', 'trash'] as const)
        metrics.poolBytes.set({ primary_storage: storage.name, host, kind }, capacity[kind]);
    }
    for (const host of storage.hosts)
      metrics.poolConnected.set(
        { primary_storage: storage.name, host: nameOf.get(host.hostId) ?? host.hostId },
        host.status === 'connected' ? 1 : 0,
      );
  }
  metrics.storeBytes.reset();
  metrics.storeConnected.reset();
  for (const row of await db.read.selectFrom('backup_storages').select(['name', 'status', 'total', 'available']).execute()) {
    metrics.storeConnected.set({ backup_storage: row.name }, row.status === 'connected' ? 1 : 0);
    if (row.total === null) continue;
    metrics.storeBytes.set({ backup_storage: row.name, kind: 'total' }, row.total);
    metrics.storeBytes.set({ backup_storage: row.name, kind: 'available' }, row.available ?? 0);
  }
  metrics.things.reset();
  for (const table of ['images', 'volumes'] as const) {
    const counts = await db.read
      .selectFrom(table)
      .select(e => ['status', e.fn.countAll<number>().as('n')])
      .groupBy('status')
      .execute();
    for (const row of counts) metrics.things.set({ kind: table === 'images' ? 'image' : 'volume', status: row.status }, row.n);
  }
  for (const [kind, table] of [
    ['replica', 'replicas'],
    ['cache', 'cache_entries'],
  ] as const) {
    const row = await db.read
      .selectFrom(table)
      .select(e => e.fn.countAll<number>().as('n'))
      .where('status', '=', 'damaged')
      .executeTakeFirstOrThrow();
    metrics.damaged.set({ kind }, row.n);
  }
  return metrics.registry.metrics();
}
