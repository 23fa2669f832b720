import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';

/** The controller's own metrics; gauges of state are set when they are scraped (`api/metrics.ts`). */
export function createMetrics(version: string) {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry, prefix: 'cistern_controller_' });
  const buckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800];
  new Gauge({
    name: 'cistern_controller_build_info',
    help: 'Always 1; the version is a label',
    labelNames: ['version'],
    registers,
  }).set({ version }, 1);
  return {
    registry,
    operations: new Counter({
      name: 'cistern_controller_operations_total',
      help: 'Operations that ended',
      labelNames: ['kind', 'state'],
      registers,
    }),
    operationSeconds: new Histogram({
      name: 'cistern_controller_operation_duration_seconds',
      help: 'From beginning an operation, or taking it up after a restart, to its end',
      labelNames: ['kind'],
      buckets,
      registers,
    }),
    operationsRunning: new Gauge({
      name: 'cistern_controller_operations_running',
      help: 'Operations under way',
      labelNames: ['kind'],
      registers,
    }),
    operationsQueued: new Gauge({
      name: 'cistern_controller_operations_queued',
      help: 'Operations that wait for a free place',
      registers,
    }),
    commitSeconds: new Histogram({
      name: 'cistern_controller_database_commit_duration_seconds',
      help: 'Time of a shared commit, its sync included',
      buckets: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1],
      registers,
    }),
    databaseDamaged: new Gauge({
      name: 'cistern_controller_database_damaged',
      help: '1 where the database turned out to be damaged while it was in use',
      registers,
    }),
    backupTime: new Gauge({
      name: 'cistern_controller_database_backup_timestamp_seconds',
      help: 'When the last sound backup of the database was made by this process; 0: none yet',
      registers,
    }),
    requestSeconds: new Histogram({
      name: 'cistern_controller_http_request_duration_seconds',
      help: 'Time of API requests',
      labelNames: ['method', 'route', 'status'],
      buckets,
      registers,
    }),
    heartbeatFailures: new Counter({
      name: 'cistern_controller_heartbeat_failures_total',
      help: 'Heartbeats that an agent did not answer',
      labelNames: ['host'],
      registers,
    }),
    hosts: new Gauge({
      name: 'cistern_controller_hosts',
      help: 'Hosts by status and state',
      labelNames: ['status', 'state'],
      registers,
    }),
    poolLevel: new Gauge({
      name: 'cistern_controller_primary_storage_level',
      help: 'How full a primary storage is: 0 it has room, 1 above physicalWarning, 2 above physicalThreshold, where it takes no new work',
      labelNames: ['primary_storage', 'host'],
      registers,
    }),
    poolBytes: new Gauge({
      name: 'cistern_controller_primary_storage_bytes',
      help: 'Book-keeping of primary storages',
      labelNames: ['primary_storage', 'host', 'kind'],
      registers,
    }),
    poolConnected: new Gauge({
      name: 'cistern_controller_primary_storage_connected',
      help: '1 where a host sees a primary storage',
      labelNames: ['primary_storage', 'host'],
      registers,
    }),
    storeBytes: new Gauge({
      name: 'cistern_controller_backup_storage_bytes',
      help: 'Capacity of backup storages',
      labelNames: ['backup_storage', 'kind'],
      registers,
    }),
    storeConnected: new Gauge({
      name: 'cistern_controller_backup_storage_connected',
      help: '1 where the last check of a backup storage passed',
      labelNames: ['backup_storage'],
      registers,
    }),
    recovery: new Gauge({
      name: 'cistern_controller_recovery',
      help: '1 while the database must be recovered (cistern controller resume)',
      registers,
    }),
    damaged: new Gauge({
      name: 'cistern_controller_damaged',
      help: 'Replicas and cached images that are known to be damaged',
      labelNames: ['kind'],
      registers,
    }),
    things: new Gauge({
      name: 'cistern_controller_resources',
      help: 'Images and volumes by status',
      labelNames: ['kind', 'status'],
      registers,
    }),
  };
}
export type Metrics = ReturnType<typeof createMetrics>;
