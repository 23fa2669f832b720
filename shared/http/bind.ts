import express, { type Express, type NextFunction, type Request, type RequestHandler, type Response } from 'express';
import { z } from 'zod';
import type { Route, RouteOutput, RouteRequest, RouteRole, Routes } from '../contract/route.ts';
import { CisternError, toProblem } from '../errors.ts';
import { type Caller, NOBODY } from './auth.ts';
import { watchBody } from './limits.ts';
import { createStrangers } from './strangers.ts';

/** What a handler gets besides its checked input. */
export interface RouteContext {
  req: Request;
  res: Response;
  /** Whose token came with the request. */
  caller: Caller;
  route: Route;
}

/** One function for each route of a table: a missing or a wrong one does not compile. */
export type RouteHandlers<T extends Routes> = {
  [K in keyof T]: (input: RouteRequest<T[K]>, context: RouteContext) => RouteOutput<T[K]> | Promise<RouteOutput<T[K]>>;
};

export interface BindOptions {
  /** Throws UNAUTHORIZED or FORBIDDEN unless the request may pass. Asked for every route but those for `anyone`. */
  authenticate: (req: Request, role: RouteRole) => Caller | Promise<Caller>;
  /** Throws where a route is closed for now. Asked once the request is known to be allowed. */
  admit?: (route: Route) => void | Promise<void>;
  /** Largest JSON body in bytes. */
  bodyLimit?: number;
}

/** Serves `table` on `app`: checks input against the schemas, calls the handler and sends what it returns. */
export function bindRoutes<T extends Routes>(app: Express, table: T, handlers: RouteHandlers<T>, options: BindOptions): void {
  const limit = options.bodyLimit ?? 2 ** 20;
  const json = express.json({ limit });
  for (const name of Object.keys(table) as (keyof T & string)[]) {
    const route = table[name]!;
    const handler = handlers[name] as unknown as (input: unknown, context: RouteContext) => unknown;
    const chain: RequestHandler[] = [];
    const callers = new WeakMap<Request, Caller>();
    if (route.role !== 'anyone')
      chain.push(async (req, res, next) => {
        const caller = await options.authenticate(req, route.role);
        callers.set(req, caller);
        // event streams, long answers and uploads end with the token that they were opened with
        if (route.bodyStream || route.method === 'get')
          res.once(
            'close',
            caller.onEnd(() => res.destroy()),
          );
        next();
      });
    const { admit } = options;
    if (admit) chain.push(async (_req, _res, next) => (await admit(route), next()));
    if (route.body) chain.push(wantJson, within(limit), json);
    chain.push(async (req, res) => {
      const output = await handler(checkInput(route, req), { req, res, route, caller: callers.get(req) ?? NOBODY });
      // a handler that streams has answered by itself
      if (route.outputStream || res.headersSent) return;
      if (route.output) res.status(route.status).json(output);
      else res.status(route.status).end();
    });
    app[route.method](route.path, ...chain);
  }
}

/** A body of another type would be taken for an empty one, and what it asks for as if nothing had been said of it. */
const wantJson: RequestHandler = (req, _res, next) => {
  const { 'content-length': length, 'content-type': type } = req.headers;
  if (length !== '0' && req.is('application/json') === false)
    throw new CisternError('BAD_REQUEST', `the body of the request is ${type ?? 'of no type'}`, {
      action: 'Send JSON with "Content-Type: application/json".',
    });
  next();
};

/** Cuts the connection of a body that is too slow or never ends, once its sender was told why. */
const within =
  (limit: number): RequestHandler =>
  (req, res, next) => {
    watchBody(req, limit, error => {
      res.setHeader('Connection', 'close');
      next(error);
    });
    next();
  };

/**
 * Ends the chain of an app: what no route took, and every error as a problem document. `onError` gets those nobody expected,
 * `onStranger` the addresses from which wrong tokens keep coming.
 */
export function bindErrors(
  app: Express,
  onError: (error: unknown, req: Request) => void,
  onStranger: (address: string) => void = () => undefined,
): void {
  const strangers = createStrangers(onStranger);
  app.use((req: Request) => {
    throw new CisternError('NOT_FOUND', `${req.method} ${req.path}: no such route`);
  });
  app.use((error: unknown, req: Request, res: Response, _next: NextFunction) => {
    const known = outstayed(fromExpress(error), req, res);
    if (!(known instanceof CisternError) || known.code === 'INTERNAL') onError(error, req);
    if (res.headersSent) return void res.destroy();
    const problem = toProblem(known);
    if (problem.status === 429 && !res.hasHeader('Retry-After')) res.setHeader('Retry-After', '1');
    if (problem.status === 401) res.setHeader('WWW-Authenticate', 'Bearer');
    res.status(problem.status).type('application/problem+json').send(JSON.stringify(problem));
  });

  /** A wrong token is told so; the address that goes on with wrong ones is told to wait, and its connection is closed. */
  function outstayed(error: unknown, req: Request, res: Response): unknown {
    if (!(error instanceof CisternError) || error.code !== 'UNAUTHORIZED') return error;
    const address = req.socket.remoteAddress ?? 'unknown';
    const seconds = strangers.seen(address);
    if (seconds === 0) return error;
    res.set({ 'Retry-After': String(seconds), Connection: 'close' });
    return new CisternError('BUSY', `too many requests with wrong tokens came from ${address}`, {
      action: `Wait ${seconds} s, then come with a right token; requests with a right one are answered all the time.`,
    });
  }
}

function checkInput(route: Route, req: Request): RouteRequest<Route> {
  return {
    params: check(route.params, req.params, 'path') as never,
    query: check(route.query ?? noQuery, req.query, 'query') as never,
    body: check(route.body, req.body ?? {}, 'body') as never,
  };
}

const noQuery = z.strictObject({});

function check(schema: z.ZodType | undefined, value: unknown, where: string): unknown {
  if (!schema) return undefined;
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const fields = parsed.error.issues.map(issue =>
    issue.path.length > 0 ? `${issue.path.join('.')}: ${issue.message}` : issue.message,
  );
  throw new CisternError('BAD_REQUEST', `the ${where} of the request: ${fields.slice(0, 20).join('; ')}`);
}

/** Errors of express's body parser carry a `type`; the rest stay what they are. */
function fromExpress(error: unknown): unknown {
  const { type, status, message, limit } = (error ?? {}) as { type?: string; status?: number; message?: string; limit?: number };
  if (error instanceof CisternError || !error) return error;
  if (type === 'entity.too.large') return new CisternError('TOO_LARGE', `the body of the request is over ${limit} bytes`);
  // the parser's own words quote the body, secrets and all
  if (type === 'entity.parse.failed')
    return new CisternError(
      'BAD_REQUEST',
      `the body of the request is not JSON${/ at position \d+/.exec(message ?? '')?.[0] ?? ''}`,
    );
  if (type === 'request.aborted') return new CisternError('BAD_REQUEST', 'the request ended before its body was whole');
  if (typeof status === 'number' && status >= 400 && status < 500)
    return new CisternError('BAD_REQUEST', message ?? 'bad request');
  return error;
}
