import { createServer as createPlain, type RequestListener, type Server as PlainServer } from 'node:http';
import { createServer as createSecure, type Server as SecureServer } from 'node:https';
import { createServer, type Server, type Socket } from 'node:net';
import { answerBroken, LIMITS, serverOptions } from '../http/limits.ts';
import { CisternError, toProblem } from '../errors.ts';
import { isLoopback } from './names.ts';

/** What a service shows of itself, and whom it believes (PEM). */
export interface ServerTls {
  ca: string;
  cert: string;
  key: string;
  /** true: nobody gets in without a certificate of that authority, and plain HTTP is refused on loopback, too. */
  only: boolean;
}

/** Longer than clients keep a connection that they do not use, so that they close it, and no request meets a closing one. */
const KEEP_ALIVE_MS = 75_000;
/** First byte of a TLS connection: a handshake record (RFC 8446, 5.1). */
const HANDSHAKE = 0x16;

/** One port for both: TLS for everybody, plain HTTP for this machine itself. */
export interface Door {
  server: Server;
  closeAll(): void;
  closeIdle(): void;
}

/** Tells by the first byte of a connection what it speaks. */
export function createDoor(app: RequestListener, tls: ServerTls | undefined): Door & { renew(next: ServerTls): void } {
  const plain = prepare(createPlain(serverOptions, app));
  const secure = tls && prepare(createSecure({ ...serverOptions, ...contextOf(tls), handshakeTimeout: LIMITS.headersMs }, app));
  // without a handshake nothing can be answered, and an end is never sent
  secure?.on('tlsClientError', (_error, socket) => socket.destroy());
  const refuse = prepare(createPlain(serverOptions, refusal(tls)));
  const undecided = new Set<Socket>();
  const open = new Set<Socket>();
  const server = createServer(socket => {
    open.add(socket);
    socket.once('close', () => open.delete(socket));
    undecided.add(socket);
    const leave = (): void => void undecided.delete(socket);
    const silent = setTimeout(() => give(plainFor(socket)), LIMITS.headersMs);
    const give = (to: PlainServer | SecureServer): void => {
      clearTimeout(silent);
      leave();
      socket.off('data', look).off('close', gone).off('error', ignore);
      to.emit('connection', socket);
    };
    const look = (chunk: Buffer): void => {
      socket.pause();
      socket.unshift(chunk);
      give(chunk[0] === HANDSHAKE && secure ? secure : plainFor(socket));
      process.nextTick(() => socket.resume());
    };
    const ignore = (): void => undefined;
    const gone = (): void => {
      clearTimeout(silent);
      leave();
    };
    socket.once('data', look).once('close', gone).on('error', ignore);
  });
  const plainFor = (socket: Socket): PlainServer => (tls?.only || !isLoopback(socket.remoteAddress ?? '') ? refuse : plain);
  server.maxConnections = LIMITS.connections;
  const all = [plain, refuse, ...(secure ? [secure] : [])];
  // they never listen by themselves, and look after slow connections only once they do
  for (const one of all) one.emit('listening');
  return {
    server,
    renew: next => void secure?.setSecureContext(contextOf(next)),
    closeIdle() {
      for (const socket of undecided) socket.destroy();
      for (const one of all) one.closeIdleConnections();
    },
    closeAll() {
      for (const socket of open) socket.destroy();
    },
  };
}

const contextOf = ({ ca, cert, key, only }: ServerTls) => ({
  ca,
  // with the authority itself: a host that joins knows no more of it than its fingerprint
  cert: `${cert}\n${ca}`,
  key,
  minVersion: 'TLSv1.3' as const,
  requestCert: true,
  rejectUnauthorized: only,
});

function prepare<T extends PlainServer | SecureServer>(server: T): T {
  answerBroken(server);
  // an upload may take hours; who receives it watches that bytes come in
  server.requestTimeout = 0;
  server.timeout = LIMITS.silentMs;
  server.keepAliveTimeout = KEEP_ALIVE_MS;
  return server;
}

const refusal =
  (tls: ServerTls | undefined): RequestListener =>
  (_req, res) => {
    const detail = `plain HTTP${tls?.only ? '' : ' from another machine'}: ${tls ? 'this service speaks TLS' : 'this service has no certificate yet'}`;
    const problem = toProblem(new CisternError('TLS_REQUIRED', detail));
    res.writeHead(problem.status, { 'Content-Type': 'application/problem+json', Connection: 'close' });
    res.end(JSON.stringify(problem));
  };
