import { createServer } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import express, { type Request, type Response } from 'express';
import { controllerRoutes } from '../../shared/contract/controller.ts';
import { bindErrors, bindRoutes, type RouteHandlers } from '../../shared/http/bind.ts';
import { NOBODY, requireToken } from '../../shared/http/auth.ts';
import type { Operation } from '../../shared/model.ts';
import { NEW_TOKEN, operation, running, samples, TOKEN } from './cli-samples.ts';

export type RouteName = keyof typeof controllerRoutes;
type Handlers = RouteHandlers<typeof controllerRoutes>;

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
    inviteHost: () => samples.invitation,
    rejoinHost: () => samples.invitation,
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
    replicateImage: () => operation(),
    deleteReplica: () => operation(),
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
    maintainPrimaryStorage: () => operation(),
    migrateVolume: () => operation(),
    scanPrimaryStorage: () => operation(),
    scanBackupStorage: () => operation(),
    validateBackupStorage: () =>
      operation({ output: { cases: [{ name: 'can be reached', ok: true, detail: '', seconds: 0.1 }] } }),
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
