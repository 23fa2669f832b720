import type { IncomingMessage } from 'node:http';
import express, { type Express } from 'express';
import { agentRoutes } from '../shared/contract/agent.ts';
import { CisternError } from '../shared/errors.ts';
import { CONTROLLER_NAME, peerName } from '../shared/tls/names.ts';
import type { Facts } from '../shared/model.ts';
import { type Caller, NOBODY, requireToken } from '../shared/http/auth.ts';
import { bindErrors, bindRoutes, type RouteContext } from '../shared/http/bind.ts';
import type { Logger } from '../shared/log.ts';
import { parsePosition, POSITION_HEADER } from '../shared/position.ts';
import type { Metrics } from './metrics.ts';
import { type ControllerAddress } from './tasks/controller-file.ts';
import { type Registry, reportOf } from './tasks/registry.ts';
import type { Runner } from './tasks/runner.ts';
import type { Serving } from './tasks/serving.ts';

export interface HttpOptions {
  token: string;
  /** Whether the controller shows a certificate instead of the token. */
  joined: boolean;
  runner: Runner;
  registry: Registry;
  metrics: Metrics;
  facts(): Promise<Facts>;
  setController(address: ControllerAddress): void;
  serving: Serving;
  /** Number of this run of the agent. */
  epoch: number;
  log: Logger;
}

/** A command for 1,000 volumes is about 100 KiB. */
const BODY_LIMIT = 4 * 2 ** 20;
/** How long the rest of a refused upload may go on coming while its answer is read. */
const DRAIN_MS = 5000;

/** The agent's HTTP interface. */
export function createApp({
  token,
  joined,
  runner,
  registry,
  metrics,
  facts,
  setController,
  serving,
  epoch,
  log,
}: HttpOptions): Express {
  const app = express().disable('x-powered-by').disable('etag');
  const admit = ({ req }: RouteContext, what?: { kind: string } | 'cancel'): void =>
    serving.admit(parsePosition(req.headers[POSITION_HEADER]), what);
  bindRoutes(
    app,
    agentRoutes,
    {
      createTask: ({ body }, context) => {
        admit(context, body.command);
        return runner.submit(body.id, body.command as Parameters<Runner['submit']>[1], body.paces);
      },
      listTasks: () => ({ items: [...registry.all()].map(reportOf) }),
      getTask: ({ params }) => reportOf(registry.get(params.id)),
      cancelTask: ({ params }, context) => {
        admit(context, 'cancel');
        return runner.cancel(params.id);
      },
      putTaskPaces: ({ params, body }, context) => {
        admit(context, 'cancel');
        return runner.setPaces(params.id, body.paces);
      },
      putTaskInput: async ({ params }, context) => {
        try {
          registry.get(params.id);
          return await runner.receive(params.id, context.req);
        } catch (error) {
          drain(context);
          throw error;
        }
      },
      facts: (_, context) => {
        admit(context);
        return facts();
      },
      setController: ({ body }) => {
        setController(body);
        log.info({ controller: body.url, hostId: body.hostId }, 'reports go to this controller from now on');
        return { hostId: body.hostId };
      },
      getController: () => {
        const { hostId = null, position = null } = serving.address() ?? {};
        return { hostId, position, epoch };
      },
      healthz: () => ({ status: 'ok' }) as const,
      metrics: async (_, { res }) => {
        const text = await metrics.text();
        res.type(metrics.contentType).send(text);
      },
    },
    { authenticate: joined ? requireController : requireToken(token, CONTROLLER), bodyLimit: BODY_LIMIT },
  );
  bindErrors(
    app,
    (error, req) => log.error({ err: error, method: req.method, path: req.path }, 'a request failed unexpectedly'),
    address => log.warn({ address }, 'requests with wrong tokens keep coming from this address; it is told to wait'),
  );
  return app;
}

const CONTROLLER: Caller = { ...NOBODY, name: 'controller', role: 'controller' };

/** Lets only the controller pass, by its certificate: TLS has refused certificates of other authorities, but hosts have some of this one. */
function requireController(req: IncomingMessage): Caller {
  const name = peerName(req.socket);
  if (name === CONTROLLER_NAME) return CONTROLLER;
  throw new CisternError('FORBIDDEN', `this is for the controller, and the certificate is made out to "${name ?? 'nobody'}"`);
}

/** Lets the sender of a refused body read why: takes the rest of it for a moment, where closing at once would break its sending. */
function drain({ req }: RouteContext): void {
  req.resume();
  const cut = setTimeout(() => req.socket.destroy(), DRAIN_MS).unref();
  req.once('end', () => clearTimeout(cut));
}
