import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { Readable } from 'node:stream';
import axios, { AxiosError, type AxiosResponse } from 'axios';
import type { Route, RouteInput, RouteResult, Routes } from '../contract/route.ts';
import { CisternError, type ErrorCode, fromProblem, Problem } from '../errors.ts';
import { type ClientTls, isTrustError, refusePlain, tlsAgent } from '../tls/client.ts';

export interface ClientOptions {
  /** Base URL of the service, without a path. */
  baseUrl: string;
  token?: string;
  /** A request without an answer for so long fails with TIMEOUT. */
  timeoutSeconds?: number;
  /** More headers, asked for at each request. */
  headers?: () => Record<string, string>;
  /** Asked at each request, since certificates are renewed; without it the authorities of Node are believed. */
  tls?: () => ClientTls;
  /** The code of errors where no answer came: who could not be reached. */
  unreachable?: ErrorCode;
}

export interface CallOptions {
  signal?: AbortSignal;
  headers?: Record<string, string>;
  timeoutSeconds?: number;
  /** For routes that take a stream. */
  stream?: Readable;
  /** Length of `stream` where it is known. */
  length?: number;
}

type Args<R extends Route> =
  Record<string, never> extends RouteInput<R>
    ? [input?: RouteInput<R>, options?: CallOptions]
    : [input: RouteInput<R>, options?: CallOptions];

/** One function for each route: returns the checked answer, or throws the CisternError that the problem document stands for. */
export type Client<T extends Routes> = { [K in keyof T]: (...args: Args<T[K]>) => Promise<RouteResult<T[K]>> } & {
  close(): void;
};

/** A typed client over axios for a table of routes. Proxies of the environment are not used and redirects not followed. */
export function createClient<T extends Routes>(table: T, options: ClientOptions): Client<T> {
  const httpAgent = new HttpAgent({ keepAlive: true, maxSockets: 64 });
  refusePlain(options.baseUrl);
  let shown = options.tls?.();
  let httpsAgent = shown ? tlsAgent(shown) : new HttpsAgent({ keepAlive: true, maxSockets: 64, minVersion: 'TLSv1.3' });
  const older: HttpsAgent[] = [];
  /** Connections that are open keep the certificate that they began with, and end by themselves once they are idle. */
  const current = (): HttpsAgent => {
    const now = options.tls?.();
    if (now && now !== shown) {
      older.push(httpsAgent);
      httpsAgent = tlsAgent((shown = now));
    }
    return httpsAgent;
  };
  const http = axios.create({
    baseURL: options.baseUrl.replace(/\/+$/, ''),
    headers: options.token ? { Authorization: `Bearer ${options.token}` } : {},
    proxy: false,
    maxRedirects: 0,
    maxContentLength: 64 * 2 ** 20,
    maxBodyLength: Infinity,
    validateStatus: () => true,
    httpAgent,
  });
  const call = async (route: Route, input: RouteInput<Route> | undefined, extra: CallOptions = {}): Promise<unknown> => {
    const url = fillPath(route.path, input?.params as Record<string, string> | undefined);
    const seconds = extra.timeoutSeconds ?? options.timeoutSeconds ?? 30;
    const headers: Record<string, string> = { ...options.headers?.(), ...extra.headers };
    if (route.bodyStream) headers['Content-Type'] = 'application/octet-stream';
    if (extra.length !== undefined) headers['Content-Length'] = String(extra.length);
    // a stream has no deadline as a whole: its receiver watches that bytes come in
    const late = new AbortController();
    const timer = route.bodyStream ? undefined : setTimeout(() => late.abort(), seconds * 1000);
    const signal = extra.signal ? AbortSignal.any([extra.signal, late.signal]) : late.signal;
    const send = () =>
      http.request<unknown>({
        method: route.method,
        url,
        params: input?.query,
        data: extra.stream ?? input?.body,
        headers,
        responseType: route.outputStream ? 'text' : 'json',
        signal,
        httpsAgent: current(),
      });
    try {
      const response = await send().catch(error => {
        if (extra.stream || !wasClosedIdle(error)) throw error;
        return send();
      });
      return readAnswer(route, response, options);
    } catch (error) {
      if (late.signal.aborted && !extra.signal?.aborted)
        throw new CisternError(
          'TIMEOUT',
          `${route.method.toUpperCase()} ${options.baseUrl}${url}: no whole answer within ${seconds} s`,
        );
      throw describe(error, route, url, options, extra.signal);
    } finally {
      clearTimeout(timer);
    }
  };
  const client = { close: () => [httpAgent, httpsAgent, ...older].forEach(agent => agent.destroy()) } as Record<string, unknown>;
  for (const [name, route] of Object.entries(table))
    client[name] = (input: RouteInput<Route> | undefined, extra?: CallOptions) => call(route, input, extra);
  return client as Client<T>;
}

/**
 * Whether a kept connection was closed by the server in the very moment that a request was to go over it, so that the request did
 * not reach it (https://nodejs.org/api/http.html#requestreusedsocket).
 */
const wasClosedIdle = (error: unknown): boolean =>
  error instanceof AxiosError &&
  !error.response &&
  (error.code === 'ECONNRESET' || error.code === 'EPIPE') &&
  (error.request as { reusedSocket?: boolean } | undefined)?.reusedSocket === true;

/**
 * `/a/:id` with its parameters put in, each escaped whole; half a character, which has no escape, becomes U+FFFD. BAD_REQUEST for
 * what would lead to another path, as URLs have it: nothing, `.` and `..`.
 */
export const fillPath = (path: string, params: Record<string, string> = {}): string =>
  path.replace(/:(\w+)/g, (_, key: string) => {
    const value = params[key] ?? '';
    if (/^\.{0,2}$/.test(value)) throw new CisternError('BAD_REQUEST', `"${value}" is neither a name nor an id`);
    return encodeURIComponent(value.toWellFormed());
  });

function readAnswer(route: Route, response: AxiosResponse<unknown>, options: ClientOptions): unknown {
  if (response.status >= 200 && response.status < 300) {
    if (!route.output) return route.outputStream ? response.data : undefined;
    const parsed = route.output.safeParse(response.data);
    if (parsed.success) return parsed.data;
    throw new CisternError(
      'INTERNAL',
      `${route.method.toUpperCase()} ${route.path}: the answer is not what this version expects: ${parsed.error.issues[0]?.path.join('.')}: ${parsed.error.issues[0]?.message}`,
    );
  }
  // routes that answer with text tell their problems as text, too
  const problem = Problem.safeParse(typeof response.data === 'string' ? jsonOr(response.data) : response.data);
  if (problem.success) throw fromProblem(problem.data);
  // a proxy, or another service: what should answer is not to be reached there
  throw new CisternError(
    options.unreachable ?? 'INTERNAL',
    `${route.method.toUpperCase()} ${options.baseUrl}${route.path}: HTTP ${response.status} without a problem document: something else than cistern answers there`,
  );
}

function jsonOr(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function describe(error: unknown, route: Route, url: string, options: ClientOptions, signal: AbortSignal | undefined): unknown {
  if (error instanceof CisternError) return error;
  if (signal?.aborted) return new CisternError('CANCELLED', `${route.method.toUpperCase()} ${url}: cancelled`);
  const tried = `${route.method.toUpperCase()} ${options.baseUrl}${url}`;
  const code = error instanceof AxiosError ? error.code : undefined;
  if (isTrustError(code, (error as Error).message))
    return new CisternError('PEER_UNTRUSTED', `${tried}: ${code ?? ''} ${(error as Error).message}`.replace(/\s+/g, ' '));
  // the AxiosError itself is not passed on as cause: its config holds the token
  if (code === 'ETIMEDOUT') return new CisternError('TIMEOUT', `${tried}: ${(error as Error).message}`);
  return new CisternError(
    options.unreachable ?? 'INTERNAL',
    `${tried}: ${code ?? ''} ${(error as Error).message}`.replace(/\s+/g, ' '),
  );
}
