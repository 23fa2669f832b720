import { createServer } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { PassThrough, Writable } from 'node:stream';
import express, { type Request, type Response } from 'express';
import { run } from '../../controller/cli/program.ts';
import { controllerRoutes } from '../../shared/contract/controller.ts';
import { bindErrors, bindRoutes, type RouteHandlers } from '../../shared/http/bind.ts';
import { NOBODY, requireToken } from '../../shared/http/auth.ts';
import { newId } from '../../shared/id.ts';
import type { Cluster, Host, Image, Operation, PrimaryStorage, Volume } from '../../shared/model.ts';

export const TOKEN = 'a-token-of-the-test-controller';
export const NEW_TOKEN = 'what-the-new-token-opens-with';
export type RouteName = keyof typeof controllerRoutes;
type Handlers = RouteHandlers<typeof controllerRoutes>;

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

export interface Seen {
  route: RouteName;
  params: unknown;
  query: unknown;
  body: unknown;
  headers: Request['headers'];
}

export interface TestController extends AsyncDisposable {
  url: string;
  seen: Seen[];
  /** The last request of a route. */
  last(route: RouteName): Seen;
}

/** Sends operations as the event stream of the contract does, and ends it. */
export function sendOperations(res: Response, ...operations: Operation[]): void {
  res.writeHead(200, { 'Content-Type': 'text/event-stream' });
  for (const each of operations) res.write(`event: operation\ndata: ${JSON.stringify(each)}\n\n`);
  res.end();
}

const page = <T>(item: T) => ({ items: [item], next: null });

/** The controller's contract served with one thing of each kind: what the command line is held against where no storage is needed. */
export async function startTestController(replace: Partial<Handlers> = {}): Promise<TestController> {
  const seen: Seen[] = [];
  const uploaded = Promise.withResolvers<void>();
  const handlers: Handlers = {
    listHosts: () => page(samples.host),
    getHost: () => samples.host,
    addHost: () => operation(),
    updateHost: () => samples.host,
    reconnectHost: () => operation(),
    removeHost: () => operation(),
    listClusters: () => page(samples.cluster),
    getCluster: () => samples.cluster,
    createCluster: () => samples.cluster,
    deleteCluster: () => undefined,
    listPrimaryStorages: () => page(samples.pool),
    getPrimaryStorage: () => samples.pool,
    addPrimaryStorage: () => operation(),
    updatePrimaryStorage: () => samples.pool,
    attachPrimaryStorage: () => operation(),
    detachPrimaryStorage: () => operation(),
    refreshPrimaryStorage: () => operation(),
    deletePrimaryStorage: () => operation(),
    listCache: () => page(samples.cacheEntry),
    addToCache: () => operation(),
    verifyCache: () => operation(),
    evictFromCache: () => operation(),
    listTrash: () => page(samples.trashEntry),
    emptyTrash: () => operation(),
    listBackupStorages: () => page(samples.store),
    getBackupStorage: () => samples.store,
    addBackupStorage: () => operation(),
    updateBackupStorage: () => samples.store,
    refreshBackupStorage: () => operation(),
    deleteBackupStorage: () => operation(),
    listImages: () => page(samples.image),
    getImage: () => samples.image,
    importImage: ({ body }) => (body.source.type === 'upload' ? running() : operation()),
    renameImage: () => samples.image,
    verifyImage: () => operation(),
    deleteImage: () => operation(),
    uploadImage: async (_input, { req }) => {
      const received = Buffer.concat((await req.toArray()) as Buffer[]).length;
      uploaded.resolve();
      return { received };
    },
    listVolumes: () => page(samples.volume),
    getVolume: () => samples.volume,
    createVolumes: () => operation(),
    updateVolume: () => samples.volume,
    resizeVolume: () => operation(),
    uploadVolume: () => operation(),
    deleteVolume: () => operation(),
    deleteVolumes: () => operation(),
    listOperations: () => page(operation()),
    getOperation: () => operation(),
    cancelOperation: () => operation({ state: 'cancelled' }),
    retryOperation: () => operation(),
    operationEvents: async (_input, { res }) => {
      await uploaded.promise;
      sendOperations(res, operation());
    },
    listEvents: () => page(samples.event),
    listTokens: () => page(samples.token),
    createToken: () => ({ ...samples.token, token: NEW_TOKEN }),
    deleteToken: () => undefined,
    healthz: () => ({ status: 'ok' as const, version: '9.9.9' }),
    getController: () => ({ version: '9.9.9', recovery: null }),
    resumeController: () => operation(),
    scanPrimaryStorage: () => operation(),
    scanBackupStorage: () => operation(),
    discovery: () => [],
    metrics: (_input, { res }) => void res.end(),
    openapi: (_input, { res }) => void res.end('{}'),
    docs: (_input, { res }) => void res.end(),
    ...replace,
  };
  const recorded = Object.fromEntries(
    Object.entries(handlers).map(([route, handler]) => [
      route,
      (input: Omit<Seen, 'route' | 'headers'>, context: { req: Request; res: Response }) => {
        seen.push({ route: route as RouteName, ...input, headers: context.req.headers });
        return (handler as (input: unknown, context: unknown) => unknown)(input, context);
      },
    ]),
  ) as unknown as Handlers;
  const app = express();
  bindRoutes(app, controllerRoutes, recorded, { authenticate: requireToken(TOKEN, NOBODY) });
  // what a handler did not expect comes back as INTERNAL, which no test expects
  bindErrors(app, () => undefined);
  const server = createServer(app).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    last: route => {
      const found = seen.findLast(request => request.route === route);
      if (!found) throw new Error(`${route} was not asked for; asked for: ${seen.map(request => request.route).join(' ')}`);
      return found;
    },
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

export interface CliRun {
  code: Promise<number>;
  stdout(): string;
  stderr(): string;
  stdin: PassThrough;
  interrupt(): void;
  /** Resolves once standard error holds `text`. */
  stderrHas(text: string): Promise<void>;
  stdoutHas(text: string): Promise<void>;
}

/** The command line in this process, with streams of its own. `terminal` makes them look like one. */
export function startCli(args: string[], env: NodeJS.ProcessEnv, terminal = false): CliRun {
  const listeners = new Set<() => void>();
  const out = sink(terminal);
  const err = sink(terminal);
  const stdin = Object.assign(new PassThrough(), { isTTY: terminal });
  const code = run(args, {
    stdout: out.stream,
    stderr: err.stream,
    stdin,
    env,
    onInterrupt: listener => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  });
  return {
    code,
    stdout: out.text,
    stderr: err.text,
    stdin,
    interrupt: () => [...listeners].forEach(listener => listener()),
    stderrHas: err.has,
    stdoutHas: out.has,
  };
}

/** Runs the command line against `controller` to its end. */
export async function cli(
  controller: { url: string },
  ...args: string[]
): Promise<{ code: number; stdout: string; stderr: string }> {
  const started = startCli(args, envFor(controller));
  return { code: await started.code, stdout: started.stdout(), stderr: started.stderr() };
}

export const envFor = (controller: { url: string }): NodeJS.ProcessEnv => ({
  HOME: '/nonexistent',
  CISTERN_URL: controller.url,
  CISTERN_TOKEN: TOKEN,
});

function sink(terminal: boolean) {
  let text = '';
  const waiting = new Set<() => void>();
  const stream = Object.assign(
    new Writable({
      write: (chunk: Buffer, _encoding, done) => {
        text += chunk.toString();
        waiting.forEach(check => check());
        done();
      },
    }),
    { isTTY: terminal, columns: 100, cursorTo: () => true, moveCursor: () => true, clearLine: () => true },
  );
  const has = (wanted: string): Promise<void> =>
    new Promise(resolve => {
      const check = (): void => {
        if (!text.includes(wanted)) return;
        waiting.delete(check);
        resolve();
      };
      waiting.add(check);
      check();
    });
  return { stream, text: () => text, has };
}
