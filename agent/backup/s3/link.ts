/** Signed requests to one object inside a transfer thread, over connections that are kept. */
import http, { type ClientRequest, type IncomingMessage } from 'node:http';
import https from 'node:https';
import { EndError } from '../../transfer/end-error.ts';
import { answerError, parseError, socketError } from './answers.ts';
import { queryText, sign, type Credentials, type Unsigned } from './sign.ts';

/** Longest error document that is read. */
const DOCUMENT = 65_536;
/** Seconds without a byte after which a connection is given up. */
const IDLE_SECONDS = 30;

export interface LinkData {
  /** `http:` or `https:`, name and port of the service. */
  protocol: string;
  hostname: string;
  port: string;
  /** As in the Host header. */
  host: string;
  /** Of the object, encoded. */
  path: string;
  credentials: Credentials;
  /** Milliseconds that the server's clock is ahead of ours. */
  ahead: number;
  ca: string | undefined;
  /** For messages. */
  name: string;
  /** Shared: one that is not 0 ends all requests. */
  bell: Int32Array;
}

export interface Link {
  send(asked: Pick<Unsigned, 'method' | 'query' | 'payload'> & { headers: Record<string, string | number> }): ClientRequest;
  /** The answer to a request, its body still to be read. Throws what the server, or the connection, said instead of one of `good`. */
  answer(request: ClientRequest, doing: string, good: readonly number[]): Promise<IncomingMessage>;
  close(): void;
}

/** Gives a request up that waits so long for the other side; `off` for one that need not be answered yet. */
export const watchIdle = (request: ClientRequest, off = false): void => void request.setTimeout(off ? 0 : IDLE_SECONDS * 1000);

export function openLink(data: LinkData): Link {
  const { protocol, hostname, port, host, path, credentials, ca, name } = data;
  const secure = protocol === 'https:';
  const options = { keepAlive: true, maxSockets: 2 };
  const agent = secure ? new https.Agent({ ...options, ...(ca !== undefined && { ca }) }) : new http.Agent(options);
  const open = new Set<ClientRequest>();
  const end = (): void => {
    for (const request of open) request.destroy(new EndError('STORE_UNREACHABLE', `using ${name}: it was ended`));
    agent.destroy();
  };
  const rung = Atomics.waitAsync(data.bell, 0, 0);
  if (rung.async) void rung.value.then(end);
  else queueMicrotask(end);
  return {
    send: ({ method, query, payload, headers }) => {
      const signed = sign({ method, host, path, query, payload }, credentials, new Date(Date.now() + data.ahead));
      const text = queryText(query);
      const request = (secure ? https : http).request({
        agent,
        hostname,
        port,
        method,
        path: text === '' ? path : `${path}?${text}`,
        headers: { ...headers, ...signed },
      });
      open.add(request);
      request.on('close', () => open.delete(request));
      request.on('timeout', () => {
        request.destroy(new EndError('STORE_UNREACHABLE', `using ${name}: no byte moved for ${IDLE_SECONDS} s`));
      });
      return request;
    },
    answer: async (request, doing, good) => {
      try {
        const response = await new Promise<IncomingMessage>((resolve, reject) => {
          request.once('response', resolve);
          request.on('error', reject);
        });
        response.on('error', () => undefined); // whoever reads it looks for itself
        if (good.includes(response.statusCode ?? 0)) return response;
        const answer = { status: response.statusCode ?? 0, date: response.headers.date, ...parseError(await document(response)) };
        request.destroy(); // of a body that is not wanted any more
        const { code, words } = answerError(answer);
        // an upload that is gone cannot be gone on with: the whole is to be begun anew
        throw new EndError(answer.code === 'NoSuchUpload' ? 'TRANSFER_CHANGED' : code, `${doing} ${name}: ${words}`);
      } catch (error) {
        throw linkError(error, `${doing} ${name}`);
      }
    },
    close: end,
  };
}

/** A failure of a connection as an EndError. */
export function linkError(error: unknown, what: string): unknown {
  const known = error instanceof EndError ? undefined : socketError(error);
  return known ? new EndError(known.code, `${what}: ${known.words}`, { cause: error }) : error;
}

async function document(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > DOCUMENT) break;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}
