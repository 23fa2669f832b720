import { newId } from '../../shared/id.ts';
import type { Cluster, Host, Image, Operation, PrimaryStorage, Volume } from '../../shared/model.ts';

export const TOKEN = 'a-token-of-the-test-controller';
export const NEW_TOKEN = 'what-the-new-token-opens-with';

const at = '2030-01-01T00:00:00.000Z';
export const ids = {
  cluster: newId(),
  host: newId(),
  pool: newId(),
  store: newId(),
  image: newId(),
  volume: newId(),
  operation: newId(),
  token: newId(),
};

export const samples = {
  cluster: { id: ids.cluster, name: 'default', createdAt: at } satisfies Cluster,
  host: {
    id: ids.host,
    name: 'kvm1',
    clusterId: ids.cluster,
    url: 'http://10.0.0.11:7071',
    status: 'connected',
    state: 'enabled',
    reason: null,
    facts: null,
    lastSeenAt: at,
    createdAt: at,
  } satisfies Host,
  pool: {
    id: ids.pool,
    name: 'fast',
    type: 'local',
    shared: false,
    config: { path: '/pool' },
    clusterIds: [ids.cluster],
    state: 'enabled',
    status: 'connected',
    reason: null,
    capacity: {
      total: 100 * 2 ** 30,
      available: 60 * 2 ** 30,
      provisioned: 2 ** 40,
      reserved: 0,
      cache: 2 ** 30,
      trash: 0,
      overcommit: 2,
    },
    hosts: [{ hostId: ids.host, status: 'connected', reason: null, capacity: null }],
    createdAt: at,
  } satisfies PrimaryStorage,
  store: {
    id: ids.store,
    name: 'shelf',
    type: 'dir',
    config: { path: '/srv' },
    state: 'enabled' as const,
    status: 'connected' as const,
    reason: null,
    capacity: null,
    limits: { bytesPerSecond: 200 * 2 ** 20, transfers: null },
    createdAt: at,
  },
  image: {
    id: ids.image,
    name: 'debian12',
    media: 'root',
    format: 'qcow2',
    status: 'ready',
    size: 512 * 2 ** 20,
    virtualSize: 2 ** 31,
    digest: null,
    replicas: [{ backupStorageId: ids.store, status: 'ready', reason: null, createdAt: at }],
    createdAt: at,
  } satisfies Image,
  volume: {
    id: ids.volume,
    name: 'web-1',
    kind: 'root',
    status: 'ready',
    primaryStorageId: ids.pool,
    hostId: ids.host,
    imageId: ids.image,
    format: 'qcow2',
    size: 10 * 2 ** 30,
    allocated: 196608,
    path: 'volumes/x',
    createdAt: at,
    deletedAt: null,
  } satisfies Volume,
  cacheEntry: {
    imageId: ids.image,
    primaryStorageId: ids.pool,
    hostId: ids.host,
    status: 'ready' as const,
    reason: null,
    verifiedAt: null,
    size: 2 ** 30,
    volumes: 3,
    lastUsedAt: at,
    createdAt: at,
  },
  trashEntry: { volumeId: ids.volume, name: 'gone', primaryStorageId: ids.pool, hostId: null, allocated: 1024, deletedAt: at },
  event: {
    seq: 7,
    at,
    type: 'operation.succeeded',
    resource: { kind: 'operation' as const, id: ids.operation },
    message: 'image.import succeeded',
    by: 'ci',
  },
  invitation: {
    name: 'kvm1',
    url: 'https://ctl:7070',
    token: 'join-token-of-kvm1',
    fingerprint: 'ab'.repeat(32),
    expiresAt: at,
  },
  token: { id: ids.token, name: 'ci', role: 'operator' as const, expiresAt: null, createdAt: at, by: 'admin' },
};

/** An operation in some state; it has ended and succeeded unless told otherwise. */
export const operation = (more: Partial<Operation> = {}): Operation => ({
  id: ids.operation,
  kind: 'image.import',
  state: 'succeeded',
  input: { name: 'debian12' },
  output: { size: 512 * 2 ** 20 },
  resources: [{ kind: 'image', id: ids.image }],
  by: 'ci',
  steps: [],
  progress: null,
  error: null,
  retryOf: null,
  createdAt: '2030-01-01T00:00:00.000Z',
  finishedAt: '2030-01-01T00:00:12.000Z',
  ...more,
});

export const running = (more: Partial<Operation> = {}): Operation =>
  operation({ state: 'running', output: null, finishedAt: null, ...more });
