import type { Readable } from 'node:stream';
import axios from 'axios';
import { CisternError, fromProblem, Problem } from '../../shared/errors.ts';
import { refusePlain, tlsAgent } from '../../shared/tls/client.ts';
import type { Connection } from './connection.ts';

/** One server-sent event (https://html.spec.whatwg.org/multipage/server-sent-events.html). */
export interface ServerSentEvent {
  id: string | undefined;
  event: string;
  data: string;
}

/** The largest event that is taken, in characters. */
const LARGEST = 16 * 2 ** 20;
/** A stream without a byte for so long is given up: services send a comment line more often than that. */
const IDLE_SECONDS = 45;

/**
 * Follows an event stream of the controller until it ends or `signal` aborts. Throws CONTROLLER_UNREACHABLE when the connection
 * fails or goes silent, and the problem that the controller answers with.
 */
export async function* followEvents(
  connection: Connection,
  path: string,
  signal: AbortSignal,
  lastEventId?: string,
): AsyncGenerator<ServerSentEvent> {
  const stop = new AbortController();
  const silence = setTimeout(() => stop.abort(), IDLE_SECONDS * 1000);
  try {
    const stream = await open(connection, path, AbortSignal.any([signal, stop.signal]), lastEventId);
    yield* parseEvents(touching(stream, () => silence.refresh()));
  } catch (error) {
    if (error instanceof CisternError || signal.aborted) throw error;
    const why = stop.signal.aborted ? `nothing came for ${IDLE_SECONDS} s` : (error as Error).message;
    throw new CisternError('CONTROLLER_UNREACHABLE', `GET ${connection.url}${path}: ${why}`);
  } finally {
    clearTimeout(silence);
    stop.abort();
  }
}

async function open(
  { url, token, tls }: Connection,
  path: string,
  signal: AbortSignal,
  lastEventId: string | undefined,
): Promise<Readable> {
  refusePlain(url);
  const headers = {
    Accept: 'text/event-stream',
    ...(token !== undefined && { Authorization: `Bearer ${token}` }),
    ...(lastEventId !== undefined && { 'Last-Event-ID': lastEventId }),
  };
  const response = await axios.get<Readable>(url.replace(/\/+$/, '') + path, {
    headers,
    signal,
    responseType: 'stream',
    proxy: false,
    maxRedirects: 0,
    ...(tls && { httpsAgent: tlsAgent(tls) }),
    validateStatus: () => true,
  });
  if (response.status === 200) return response.data;
  const text = (await response.data.setEncoding('utf8').toArray()).join('').slice(0, LARGEST);
  let problem: unknown;
  try {
    problem = JSON.parse(text);
  } catch {
    problem = undefined; // not from the controller: told below by its status
  }
  const parsed = Problem.safeParse(problem);
  throw parsed.success
    ? fromProblem(parsed.data)
    : new CisternError('INTERNAL', `GET ${path}: HTTP ${response.status} without a problem document`);
}

async function* touching<T>(stream: AsyncIterable<T>, touch: () => void): AsyncGenerator<T> {
  for await (const chunk of stream) {
    touch();
    yield chunk;
  }
}

/** Cuts a stream of bytes into events; comments and unknown fields are passed over, as the standard says. */
export async function* parseEvents(stream: AsyncIterable<Buffer | string>): AsyncGenerator<ServerSentEvent> {
  const decoder = new TextDecoder();
  let rest = '';
  let lastId: string | undefined;
  for await (const chunk of stream) {
    rest += typeof chunk === 'string' ? chunk : decoder.decode(chunk, { stream: true });
    // a lone CR at the end may be the first half of CRLF
    const blocks = rest.replace(/\r\n|\r(?!$)/g, '\n').split('\n\n');
    rest = blocks.pop()!;
    if (rest.length > LARGEST) throw new Error(`an event is over ${LARGEST} characters`);
    for (const block of blocks) {
      const fields = parseBlock(block);
      lastId = fields.id ?? lastId;
      if (fields.data.length > 0) yield { id: lastId, event: fields.event ?? 'message', data: fields.data.join('\n') };
    }
  }
}

function parseBlock(block: string): { id?: string; event?: string; data: string[] } {
  const found: { id?: string; event?: string; data: string[] } = { data: [] };
  for (const line of block.split('\n')) {
    const colon = line.indexOf(':');
    const name = colon === -1 ? line : line.slice(0, colon);
    const value = colon === -1 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (name === 'data') found.data.push(value);
    else if (name === 'id' || name === 'event') found[name] = value;
  }
  return found;
}
