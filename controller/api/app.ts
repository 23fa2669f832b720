import { timingSafeEqual } from 'node:crypto';
import express, { type Express, type Request } from 'express';
import { controllerRoutes } from '../../shared/contract/controller.ts';
import { reportRoutes } from '../../shared/contract/operations.ts';
import type { Route } from '../../shared/contract/route.ts';
import { CisternError } from '../../shared/errors.ts';
import { bearerOf, type Caller, NOBODY, tokenHash } from '../../shared/http/auth.ts';
import { bindErrors, bindRoutes } from '../../shared/http/bind.ts';
import { openApi } from '../../shared/http/openapi.ts';
import { parseHostName, peerName } from '../../shared/tls/names.ts';
import type { Api } from './api.ts';
import { bindJoin, invitationHandlers } from './join.ts';
import { controllerHandlers } from './controller.ts';
import { docsPage } from './docs.ts';
import { hostHandlers } from './hosts.ts';
import { imageHandlers } from './images.ts';
import { scrape } from './metrics.ts';
import { operationHandlers } from './operations.ts';
import { backupStorageHandlers, cacheHandlers, primaryStorageHandlers } from './storages.ts';
import { tokenHandlers } from './tokens.ts';
import { volumeHandlers } from './volumes.ts';

/** The controller's HTTP side: its API for people, and the reports of agents, each with their own tokens. */
export function createApp(api: Api): Express {
  const { services } = api;
  const app = express();
  app.disable('x-powered-by');
  app.set('etag', false);
  app.set('query parser', 'simple');
  app.use((req, res, next) => {
    const end = services.metrics.requestSeconds.startTimer();
    res.once('finish', () =>
      end({ method: req.method, route: (req.route as { path?: string } | undefined)?.path ?? 'none', status: res.statusCode }),
    );
    next();
  });
  const document = openApi(controllerRoutes, {
    title: 'cistern',
    version: api.version,
    description: 'A storage plane for KVM hosts. What takes time answers 202 with an operation.',
  });
  const page = docsPage(document);
  const admit = async (route: Route): Promise<void> => {
    if (route.method === 'get' || route.inRecovery) return;
    await api.met;
    services.recovery.refuse();
  };
  bindRoutes(
    app,
    controllerRoutes,
    {
      ...controllerHandlers(api),
      ...hostHandlers(api),
      ...invitationHandlers(api),
      ...primaryStorageHandlers(api),
      ...cacheHandlers(api),
      ...backupStorageHandlers(api),
      ...imageHandlers(api),
      ...volumeHandlers(api),
      ...operationHandlers(api),
      ...tokenHandlers(api),
      healthz: () => ({ status: 'ok' as const, version: api.version }),
      metrics: async (_input, { res }) => void res.type(services.metrics.registry.contentType).send(await scrape(services)),
      discovery: async () => {
        const hosts = await services.db.read
          .selectFrom('hosts')
          .innerJoin('clusters', 'clusters.id', 'hosts.cluster_id')
          .select(['hosts.name', 'hosts.url', 'clusters.name as cluster'])
          .execute();
        return hosts.map(host => {
          const url = new URL(host.url);
          return {
            targets: [url.host],
            labels: {
              host: host.name,
              cluster: host.cluster,
              __scheme__: url.protocol.slice(0, -1),
              __metrics_path__: '/metrics',
            },
          };
        });
      },
      openapi: (_input, { res }) => void res.type('application/json').send(JSON.stringify(document)),
      docs: (_input, { res }) => void res.type('text/html').send(page),
    },
    { authenticate: services.tokens.authenticate, admit },
  );
  bindReports(app, api);
  bindErrors(
    app,
    (error, req) => services.log.error({ err: error, method: req.method, path: req.path }, 'a request failed unexpectedly'),
    address => services.log.warn({ address }, 'requests with wrong tokens keep coming from this address; it is told to wait'),
  );
  return app;
}

/** The reports of agents: each host may speak only for itself, by its certificate, or by its token where it did not join. */
function bindReports(app: Express, api: Api): void {
  const { services } = api;
  const authenticate = async (req: Request): Promise<Caller> => {
    const name = peerName(req.socket);
    if (name !== undefined) {
      const peer = parseHostName(name);
      const row = peer && (await services.db.read.selectFrom('hosts').select(['id', 'generation']).where('id', '=', peer.hostId).executeTakeFirst()); // prettier-ignore
      if (!row || row.generation !== peer.generation)
        throw new CisternError('UNAUTHORIZED', 'the certificate is not that of a host, or of an earlier join of it');
      return { ...NOBODY, name: row.id, role: 'host' };
    }
    const given = bearerOf(req);
    if (!given) throw new CisternError('UNAUTHORIZED', 'the request has no bearer token');
    const hash = tokenHash(given);
    const host = await services.db.read
      .selectFrom('hosts')
      .select(['id', 'report_hash', 'generation'])
      .where('report_hash', '=', hash.toString('hex'))
      .executeTakeFirst();
    if (!host || !timingSafeEqual(Buffer.from(host.report_hash, 'hex'), hash))
      throw new CisternError('UNAUTHORIZED', 'the bearer token is not that of a host');
    if (host.generation !== null)
      throw new CisternError('UNAUTHORIZED', `host ${host.id} has joined: its certificate lets it in, no token does`);
    return { ...NOBODY, name: host.id, role: 'host' };
  };
  bindRoutes(
    app,
    reportRoutes,
    {
      postReports({ body }, { caller }) {
        const hostId = caller.name;
        if (body.hostId !== hostId)
          throw new CisternError('UNAUTHORIZED', `what lets it in belongs to another host than ${body.hostId}`);
        return { acked: services.fleet.take(hostId, body) };
      },
    },
    { authenticate, bodyLimit: 16 * 2 ** 20 },
  );
  bindJoin(app, api, authenticate);
}
