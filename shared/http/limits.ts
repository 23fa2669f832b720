import type { IncomingMessage, RequestListener, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { CisternError, toProblem } from '../errors.ts';

/** What clients may take of a service, one at a time or all together. */
export const LIMITS = {
  /** Bytes of a request's line and headers; a token and a few ids need one. */
  headerBytes: 16 * 2 ** 10,
  /** Milliseconds until the headers of a request are there, also of the first one on a connection. */
  headersMs: 10_000,
  /** Milliseconds until a JSON body is there. Uploads have no deadline: who receives them watches that bytes come in. */
  bodyMs: 30_000,
  /** Connections at once; more are closed as they come. */
  connections: 4096,
  /** Requests under way at once, event streams and held answers included; more are asked to come back. */
  requests: 2048,
  /** Of these on one connection. Clients send the next one once they have the answer; who does not is out for memory. */
  pipelined: 16,
  /** A connection on which no byte moves for so long is closed, answers that nobody reads included; an answer is held for a minute at most. */
  silentMs: 150_000,
  /** How often connections are looked at for those that are too slow, in milliseconds. */
  lookMs: 1000,
};

/** Settings of Node's server that go with its construction. */
export const serverOptions = {
  maxHeaderSize: LIMITS.headerBytes,
  headersTimeout: LIMITS.headersMs,
  connectionsCheckingInterval: LIMITS.lookMs,
};

/** `app` for at most so many requests at once, and few of one connection: that is cut where more come. `/healthz` is always answered: who watches must not take busy for dead. */
export function withLimits(app: RequestListener, most = LIMITS.requests): RequestListener {
  let open = 0;
  const ofSocket = new WeakMap<Socket, number>();
  return (req, res) => {
    const { socket } = req;
    const others = ofSocket.get(socket) ?? 0;
    if (others >= LIMITS.pipelined) return void socket.destroy();
    ofSocket.set(socket, others + 1);
    res.once('close', () => ofSocket.set(socket, ofSocket.get(socket)! - 1));
    if (open >= most && req.url !== '/healthz')
      return refuse(res, new CisternError('BUSY', `${open} requests are under way already, which is as many as may be`));
    open++;
    res.once('close', () => open--);
    app(req, res);
  };
}

function refuse(res: ServerResponse, error: CisternError): void {
  const problem = toProblem(error);
  res.writeHead(problem.status, { 'Content-Type': 'application/problem+json', 'Retry-After': '1', Connection: 'close' });
  res.end(JSON.stringify(problem));
}

/** Answers what is no request that can be read with a problem document, and closes the connection. */
export function answerBroken(server: Server): void {
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) => {
    const { bytesWritten } = socket;
    // where an answer is on its way already, another one in the middle of it would only confuse
    if (error.code === 'ECONNRESET' || !socket.writable || bytesWritten > 0) return void socket.destroy();
    const [line, problem] = brokenness(error.code ?? '');
    const body = JSON.stringify(toProblem(problem));
    socket.end(
      `HTTP/1.1 ${line}\r\nContent-Type: application/problem+json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
    );
  });
}

function brokenness(code: string): [line: string, problem: CisternError] {
  switch (code) {
    case 'HPE_HEADER_OVERFLOW':
      return [
        '431 Request Header Fields Too Large',
        new CisternError('TOO_LARGE', `the headers of the request are over ${LIMITS.headerBytes} bytes`),
      ];
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return [
        '408 Request Timeout',
        new CisternError('TIMEOUT', `no whole request came within ${LIMITS.headersMs / 1000} s of the connection's opening`),
      ];
    default:
      return ['400 Bad Request', new CisternError('BAD_REQUEST', `what came is no HTTP request that can be read (${code})`)];
  }
}

/**
 * Fails a request whose body is not there in time, or goes on past twice its limit: body-parser reads on for the sake of those who
 * send all before they read the answer (https://github.com/expressjs/body-parser, lib/read.js), which is for ever where it never ends.
 */
export function watchBody(
  req: IncomingMessage,
  limit: number,
  failed: (error: CisternError) => void,
  bodyMs = LIMITS.bodyMs,
): void {
  let bytes = 0;
  const settle = (): void => {
    clearTimeout(late);
    req.off('data', count);
  };
  const fail = (error: CisternError): void => {
    settle();
    if (!req.complete) failed(error);
  };
  const count = (chunk: Buffer): void => {
    bytes += chunk.length;
    if (bytes > 2 * limit) fail(new CisternError('TOO_LARGE', `the body of the request is over ${limit} bytes`));
  };
  const late = setTimeout(
    () => fail(new CisternError('TIMEOUT', `the body of the request was not there within ${bodyMs / 1000} s`)),
    bodyMs,
  );
  req.on('data', count).once('end', settle).once('close', settle);
}
