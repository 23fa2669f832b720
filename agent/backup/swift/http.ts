/** Requests as bytes need them: straight out of a buffer and into one, over connections that are kept. */
import { Agent, request as httpRequest, type ClientRequest, type IncomingHttpHeaders, type IncomingMessage } from 'node:http';
import { Agent as TlsAgent, request as httpsRequest } from 'node:https';
import { EndError } from '../../transfer/end-error.ts';
import type { Moved } from '../../transfer/ends.ts';
import { socketError } from './errors.ts';

/** A connection on which nothing moves for so long is given up. */
const IDLE_MS = 60_000;
/** How long a server may take to say that it wants the body; one that does not know the question gets it then (RFC 9110, 10.1.1). */
const CONTINUE_MS = 2000;
/** How long a write that the server has whole may take to be answered once nobody wants it any more. */
const SETTLE_MS = 5000;
const SLICE = 2 ** 20;
/** Bodies beyond this are sent once the server says that it takes them: a refusal then costs nothing, and is not lost in a reset. */
const ASK_FIRST = 2 ** 16;

export interface Ask {
  method: 'GET' | 'HEAD' | 'PUT' | 'POST' | 'DELETE';
  url: URL;
  /** As it stands in the request line, escaped; `url` gives the server. */
  path: string;
  headers?: Record<string, string>;
  body?: Uint8Array;
  /** Milliseconds without a byte that the server may take; IDLE_MS else. */
  idleMs?: number;
  moved?: Moved;
  /** For messages. */
  tried: string;
}

/** The head of an answer; its body waits until it is collected, poured or dropped. */
export interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  message: IncomingMessage;
  request: ClientRequest;
  ask: Ask;
}

export interface Wire extends Disposable {
  send(ask: Ask): Promise<Answer>;
}

/** Connections to servers; `ca` is trusted instead of the system's authorities. */
export function openWire(ca: string | undefined): Wire {
  const plain = new Agent({ keepAlive: true });
  const tls = new TlsAgent({ keepAlive: true, ...(ca !== undefined && { ca }) });
  const running = new Set<ClientRequest>();
  let closed = false;
  const begin = (ask: Ask): Promise<Answer> => {
    if (closed) throw new EndError('STORE_UNREACHABLE', `${ask.tried}: the storage was closed`);
    const isTls = ask.url.protocol === 'https:';
    const { hostname, port } = ask.url;
    const length = ask.body?.length;
    const waits = length !== undefined && length > ASK_FIRST;
    const headers = {
      ...ask.headers,
      ...(length !== undefined && { 'content-length': String(length) }),
      ...(waits && { expect: '100-continue' }),
    };
    const options = { hostname: hostname.replace(/^\[|\]$/g, ''), port, path: ask.path, method: ask.method, headers };
    const request = isTls ? httpsRequest({ ...options, agent: tls }) : httpRequest({ ...options, agent: plain });
    running.add(request);
    request.once('close', () => running.delete(request));
    return exchange(request, ask, waits);
  };
  return {
    send: async ask => {
      try {
        return await begin(ask);
      } catch (error) {
        // a kept connection may have been closed by the server just now; every request of ours may be made twice
        if (!isStale(error) || closed) throw socketError(error, ask.tried);
        return await begin(ask).catch((second: unknown) => {
          throw socketError(second, ask.tried);
        });
      }
    },
    [Symbol.dispose]: () => {
      closed = true;
      for (const request of running) if (!isSent(request)) request.destroy();
      const cut = (): void => {
        for (const request of running) request.destroy();
        plain.destroy();
        tls.destroy();
      };
      // what the server has whole it stores, whether we listen or not: only its answer says that it is there to be removed
      if ([...running].some(isSent)) setTimeout(cut, SETTLE_MS).unref();
      else cut();
    },
  };
}

const isSent = (request: ClientRequest): boolean => request.method !== 'GET' && request.writableFinished && !request.destroyed;
const isStale = (error: unknown): boolean => (error as { stale?: boolean }).stale === true;

function exchange(request: ClientRequest, ask: Ask, waits: boolean): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const idleMs = ask.idleMs ?? IDLE_MS;
  request.setTimeout(idleMs, () => request.destroy(new Error(`no byte came for ${idleMs / 1000} s`)));
  request.on('error', error => reject(request.reusedSocket ? Object.assign(error, { stale: true }) : error));
  request.once('response', message => {
    request.setTimeout(0); // until somebody wants the body
    message.on('error', () => undefined); // who reads the body hears of it by `close`
    resolve({ status: message.statusCode!, headers: message.headers, message, request, ask });
  });
  let sent = false;
  const send = (): void => {
    if (sent || request.destroyed) return;
    sent = true;
    sendBody(request, ask).catch(reject);
  };
  if (!waits) send();
  else {
    const timer = setTimeout(send, CONTINUE_MS);
    const answered = (): void => clearTimeout(timer);
    request.once('continue', () => (answered(), send()));
    request.once('response', answered);
    request.once('close', answered);
    request.flushHeaders();
  }
  return promise;
}

async function sendBody(request: ClientRequest, { body, moved }: Ask): Promise<void> {
  for (let at = 0; body !== undefined && at < body.length && !request.destroyed; at += SLICE) {
    const slice = body.subarray(at, at + SLICE);
    await new Promise<void>((done, failed) => request.write(slice, error => (error ? failed(error) : done())));
    moved?.(slice.length);
  }
  request.end();
}

/** The body of an answer; at most `limit` bytes, else STORE_UNREACHABLE. */
export async function collect(answer: Answer, limit: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  await pour(answer, chunk => {
    size += chunk.length;
    if (size > limit) return `it sent more than ${limit} bytes`;
    chunks.push(chunk);
    return undefined;
  });
  return Buffer.concat(chunks);
}

/** Pours the body of an answer into a buffer, which it must fill. */
export async function fill(answer: Answer, into: Uint8Array): Promise<void> {
  let filled = 0;
  await pour(answer, chunk => {
    if (filled + chunk.length > into.length) return `it sent more than the ${into.length} bytes that were asked for`;
    into.set(chunk, filled);
    filled += chunk.length;
    answer.ask.moved?.(chunk.length);
    return undefined;
  });
  if (filled < into.length) throw socketError(new Error(`it sent ${filled} of ${into.length} bytes`), answer.ask.tried);
}

/** Gives an answer up, and its connection. */
export const drop = ({ request }: Answer): void => void request.destroy();

/** Reads the body of an answer; `take` says why it wants no more of it, if so. */
async function pour(answer: Answer, take: (chunk: Buffer) => string | undefined): Promise<void> {
  const { message, request, ask } = answer;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const idleMs = ask.idleMs ?? IDLE_MS;
  let why = 'the connection broke';
  const give = (reason: string): void => {
    why = reason;
    request.destroy();
  };
  if (message.destroyed && !message.complete) throw socketError(new Error(why), ask.tried);
  request.setTimeout(idleMs, () => give(`no byte came for ${idleMs / 1000} s`));
  message.on('data', (chunk: Buffer) => {
    const refused = take(chunk);
    if (refused !== undefined) give(refused);
  });
  message.once('end', resolve);
  message.once('close', () => reject(new Error(why)));
  try {
    await promise;
  } catch (error) {
    throw socketError(error, ask.tried);
  } finally {
    request.setTimeout(0);
    if (!request.writableFinished) request.destroy(); // refused before its body was sent: nothing else can go over it
  }
}
