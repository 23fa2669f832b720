import type { z } from 'zod';
import type { Role } from '../model.ts';

/**
 * Who may call a route: `anyone`, or who shows a token of at least this role. `controller` and `host` are the tokens that the services
 * hold of each other: the controller's for an agent, and a host's for its reports.
 */
export type RouteRole = Role | 'anyone' | 'controller' | 'host';

export type Method = 'get' | 'post' | 'put' | 'patch' | 'delete';

/** One HTTP route, said once: the express binder, the axios client and the OpenAPI document are made from it. */
export interface Route {
  method: Method;
  /** Express style: `/api/v1/volumes/:id`. */
  path: string;
  role: RouteRole;
  tag: string;
  summary: string;
  description?: string;
  params?: z.ZodObject;
  query?: z.ZodObject;
  body?: z.ZodType;
  /** `stream`: the body comes in as raw bytes, which the handler reads from the request itself. */
  bodyStream?: boolean;
  status: number;
  /** Missing: an answer without a body. */
  output?: z.ZodType;
  /** `stream`: the handler writes the answer itself (server-sent events, metrics text, HTML). */
  outputStream?: string;
  /** true: the route starts an operation; `Idempotency-Key` and `Prefer: wait=N` are understood. */
  starts?: boolean;
  /** true: it may be asked for although the controller's database must be recovered, as reading may. */
  inRecovery?: true;
}

export type Routes = Record<string, Route>;

/** Keeps the literal types of a table of routes. */
export const routes = <const R extends Routes>(table: R): R => table;

type In<S> = S extends z.ZodType ? z.input<S> : undefined;
type Parsed<S> = S extends z.ZodType ? z.output<S> : undefined;
type Optional<K extends string, V> = [V] extends [undefined]
  ? { [P in K]?: undefined }
  : Record<string, never> extends V
    ? { [P in K]?: V }
    : { [P in K]: V };

/** What a caller of a route passes. */
export type RouteInput<R extends Route> = Optional<'params', In<R['params']>> &
  Optional<'query', In<R['query']>> &
  Optional<'body', In<R['body']>>;
/** What the handler of a route gets, checked and with defaults filled in. */
export interface RouteRequest<R extends Route> {
  params: Parsed<R['params']>;
  query: Parsed<R['query']>;
  body: Parsed<R['body']>;
}
export type RouteOutput<R extends Route> = R['output'] extends z.ZodType ? z.input<R['output']> : void;
export type RouteResult<R extends Route> = R['output'] extends z.ZodType ? z.output<R['output']> : void;
