import { z } from 'zod';
import { BackupStorage, CacheEntry, DriverConfig, Id, Name, Operation, PrimaryStorage, State, Status, Time, Bytes } from '../model.ts';
import { listOf, page, ref } from './lists.ts';
import { routes } from './route.ts';

const filter = page.extend({ type: z.string().optional(), status: Status.optional(), state: State.optional() });

export const primaryStorageRoutes = routes({
  listPrimaryStorages: { method: 'get', path: '/api/v1/primary-storages', tag: 'primary storage', summary: 'List primary storages', query: filter.extend({ cluster: z.string().optional() }), status: 200, output: listOf(PrimaryStorage) },
  getPrimaryStorage: { method: 'get', path: '/api/v1/primary-storages/:ref', tag: 'primary storage', summary: 'Show a primary storage', params: ref, status: 200, output: PrimaryStorage },
  addPrimaryStorage: {
    method: 'post',
    path: '/api/v1/primary-storages',
    tag: 'primary storage',
    summary: 'Add a primary storage and connect the hosts of its clusters to it',
    body: z.strictObject({
      name: Name,
      type: z.string().min(1).max(32),
      config: DriverConfig.default({}),
      clusters: z.array(z.string()).min(1).default(['default']).describe('clusters whose hosts use it'),
      overcommit: z.number().min(0.1).max(100).default(2).describe('how many times the physical size may be provisioned'),
    }),
    starts: true,
    status: 202,
    output: Operation,
  },
  updatePrimaryStorage: {
    method: 'patch',
    path: '/api/v1/primary-storages/:ref',
    tag: 'primary storage',
    summary: 'Rename a primary storage, change its state or its over-commit ratio',
    params: ref,
    body: z.strictObject({ name: Name.optional(), state: State.optional(), overcommit: z.number().min(0.1).max(100).optional() }),
    status: 200,
    output: PrimaryStorage,
  },
  attachPrimaryStorage: { method: 'post', path: '/api/v1/primary-storages/:ref/attach', tag: 'primary storage', summary: 'Attach a primary storage to a cluster', params: ref, body: z.strictObject({ cluster: z.string() }), starts: true, status: 202, output: Operation },
  detachPrimaryStorage: { method: 'post', path: '/api/v1/primary-storages/:ref/detach', tag: 'primary storage', summary: 'Detach a primary storage from a cluster', params: ref, body: z.strictObject({ cluster: z.string() }), starts: true, status: 202, output: Operation },
  refreshPrimaryStorage: { method: 'post', path: '/api/v1/primary-storages/:ref/refresh', tag: 'primary storage', summary: 'Connect again and measure capacity, cache, volumes and trash', params: ref, starts: true, status: 202, output: Operation },
  deletePrimaryStorage: { method: 'delete', path: '/api/v1/primary-storages/:ref', tag: 'primary storage', summary: 'Remove a primary storage that holds no volumes', params: ref, starts: true, status: 202, output: Operation },
  listCache: {
    method: 'get',
    path: '/api/v1/cache',
    tag: 'image cache',
    summary: 'List cached images',
    query: page.extend({ image: z.string().optional(), primaryStorage: z.string().optional() }),
    status: 200,
    output: listOf(CacheEntry),
  },
  addToCache: {
    method: 'post',
    path: '/api/v1/cache',
    tag: 'image cache',
    summary: 'Prefetch an image into the cache of a primary storage',
    body: z.strictObject({ image: z.string(), primaryStorage: z.string(), host: z.string().optional().describe('for local pools: only this host; else every host that is connected') }),
    starts: true,
    status: 202,
    output: Operation,
  },
  evictFromCache: {
    method: 'post',
    path: '/api/v1/cache/evict',
    tag: 'image cache',
    summary: 'Remove an image from a cache; refused while volumes stand on it',
    body: z.strictObject({ image: z.string(), primaryStorage: z.string(), host: z.string().optional() }),
    starts: true,
    status: 202,
    output: Operation,
  },
  listTrash: {
    method: 'get',
    path: '/api/v1/trash',
    tag: 'volumes',
    summary: 'List deleted volumes that are not yet purged',
    query: page.extend({ primaryStorage: z.string().optional() }),
    status: 200,
    output: listOf(z.object({ volumeId: Id, name: Name, primaryStorageId: Id, hostId: Id.nullable(), allocated: Bytes.nullable(), deletedAt: Time }).meta({ id: 'TrashEntry' })),
  },
  emptyTrash: {
    method: 'post',
    path: '/api/v1/trash/empty',
    tag: 'volumes',
    summary: 'Purge deleted volumes now',
    body: z.strictObject({ primaryStorage: z.string().optional().describe('all when missing') }),
    starts: true,
    status: 202,
    output: Operation,
  },
});

export const backupStorageRoutes = routes({
  listBackupStorages: { method: 'get', path: '/api/v1/backup-storages', tag: 'backup storage', summary: 'List backup storages', query: filter, status: 200, output: listOf(BackupStorage) },
  getBackupStorage: { method: 'get', path: '/api/v1/backup-storages/:ref', tag: 'backup storage', summary: 'Show a backup storage', params: ref, status: 200, output: BackupStorage },
  addBackupStorage: {
    method: 'post',
    path: '/api/v1/backup-storages',
    tag: 'backup storage',
    summary: 'Add a backup storage; a host checks that it can be read and written',
    body: z.strictObject({ name: Name, type: z.string().min(1).max(32), config: DriverConfig.default({}) }),
    starts: true,
    status: 202,
    output: Operation,
  },
  updateBackupStorage: { method: 'patch', path: '/api/v1/backup-storages/:ref', tag: 'backup storage', summary: 'Rename a backup storage or change its state', params: ref, body: z.strictObject({ name: Name.optional(), state: State.optional() }), status: 200, output: BackupStorage },
  refreshBackupStorage: { method: 'post', path: '/api/v1/backup-storages/:ref/refresh', tag: 'backup storage', summary: 'Check a backup storage again and measure its capacity', params: ref, starts: true, status: 202, output: Operation },
  deleteBackupStorage: { method: 'delete', path: '/api/v1/backup-storages/:ref', tag: 'backup storage', summary: 'Remove a backup storage that holds no images', params: ref, starts: true, status: 202, output: Operation },
});
