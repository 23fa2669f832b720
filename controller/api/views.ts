import type {
  BackupStorage,
  CacheEntry,
  Cluster,
  Facts,
  Host,
  Image,
  PoolHost,
  PrimaryStorage,
  Volume,
} from '../../shared/model.ts';
import type { Reader } from '../db/database.ts';
import type { Row } from '../db/schema.ts';
import { poolCapacity } from '../policy/capacity.ts';

/** Rows of the database as the API shows them. */

export const toCluster = (row: Row<'clusters'>): Cluster => ({ id: row.id, name: row.name, createdAt: row.created_at });

export const toHost = (row: Row<'hosts'>): Host => ({
  id: row.id,
  name: row.name,
  clusterId: row.cluster_id,
  url: row.url,
  status: row.status,
  state: row.state,
  reason: row.reason,
  facts: row.facts_json === null ? null : (JSON.parse(row.facts_json) as Facts),
  lastSeenAt: row.last_seen_at,
  createdAt: row.created_at,
});

const hostId = (id: string): string | null => (id === '' ? null : id);

export async function toPrimaryStorage(db: Reader, row: Row<'primary_storages'>): Promise<PrimaryStorage> {
  const clusters = await db
    .selectFrom('primary_storage_clusters')
    .select('cluster_id')
    .where('primary_storage_id', '=', row.id)
    .execute();
  const pools = await db
    .selectFrom('pools')
    .innerJoin('hosts', 'hosts.id', 'pools.host_id')
    .select(['pools.host_id', 'pools.status', 'pools.reason', 'hosts.status as host_status', 'hosts.reason as host_reason'])
    .where('primary_storage_id', '=', row.id)
    .orderBy('hosts.name')
    .execute();
  const hosts: PoolHost[] = [];
  for (const pool of pools) {
    const up = pool.host_status === 'connected';
    hosts.push({
      hostId: pool.host_id,
      status: up ? pool.status : 'disconnected',
      reason: up ? pool.reason : (pool.host_reason ?? 'the host is not connected'),
      capacity: row.shared ? null : await poolCapacity(db, row, pool.host_id),
    });
  }
  const best =
    (['connected', 'connecting', 'disconnected'] as const).find(status => hosts.some(host => host.status === status)) ??
    'disconnected';
  const parts = hosts.flatMap(host => host.capacity ?? []);
  const whole =
    parts.length === 0
      ? null
      : parts.reduce((a, b) => ({
          ...a,
          total: a.total + b.total,
          available: a.available + b.available,
          provisioned: a.provisioned + b.provisioned,
          reserved: a.reserved + b.reserved,
          volumes: a.volumes + b.volumes,
          cache: a.cache + b.cache,
          trash: a.trash + b.trash,
          level: a.level === 'stop' || b.level === 'ok' ? a.level : b.level,
        }));
  return {
    id: row.id,
    name: row.name,
    type: row.type,
    shared: row.shared === 1,
    config: JSON.parse(row.config_json) as Record<string, unknown>,
    clusterIds: clusters.map(cluster => cluster.cluster_id),
    state: row.state,
    status: best,
    reason:
      best === 'connected'
        ? null
        : (hosts.find(host => host.reason)?.reason ?? (hosts.length === 0 ? 'no host is to see it' : null)),
    capacity: row.shared ? await poolCapacity(db, row, '') : whole,
    hosts,
    createdAt: row.created_at,
  };
}

export const toBackupStorage = (row: Row<'backup_storages'>): BackupStorage => ({
  id: row.id,
  name: row.name,
  type: row.type,
  config: JSON.parse(row.config_json) as Record<string, unknown>,
  state: row.state,
  status: row.status,
  reason: row.reason,
  capacity: row.total === null ? null : { total: row.total, available: row.available! },
  limits: { bytesPerSecond: row.bytes_per_second, transfers: row.transfers },
  createdAt: row.created_at,
});

export const toImage = (row: Row<'images'>, replicas: Row<'replicas'>[]): Image => ({
  id: row.id,
  name: row.name,
  media: row.media,
  format: row.format,
  status: row.status,
  size: row.size,
  virtualSize: row.virtual_size,
  digest: row.digest,
  replicas: replicas.map(replica => ({
    backupStorageId: replica.backup_storage_id,
    status: replica.status,
    reason: replica.reason,
    createdAt: replica.created_at,
  })),
  createdAt: row.created_at,
});

export async function toImages(db: Reader, rows: Row<'images'>[]): Promise<Image[]> {
  if (rows.length === 0) return [];
  const replicas = await db
    .selectFrom('replicas')
    .selectAll()
    .where(
      'image_id',
      'in',
      rows.map(row => row.id),
    )
    .execute();
  const byImage = Map.groupBy(replicas, replica => replica.image_id);
  return rows.map(row => toImage(row, byImage.get(row.id) ?? []));
}

export const toCacheEntry = (row: Row<'cache_entries'> & { volumes: number }): CacheEntry => ({
  imageId: row.image_id,
  primaryStorageId: row.primary_storage_id,
  hostId: hostId(row.host_id),
  status: row.status,
  reason: row.reason,
  verifiedAt: row.verified_at,
  size: row.size,
  volumes: row.volumes,
  lastUsedAt: row.last_used_at,
  createdAt: row.created_at,
});

export const toVolume = (row: Row<'volumes'>): Volume => ({
  id: row.id,
  name: row.name,
  kind: row.kind,
  status: row.status,
  primaryStorageId: row.primary_storage_id,
  hostId: hostId(row.host_id),
  imageId: row.image_id,
  format: row.format,
  size: row.size,
  allocated: row.allocated,
  path: row.status === 'ready' ? row.path : null,
  createdAt: row.created_at,
  deletedAt: row.deleted_at,
});
