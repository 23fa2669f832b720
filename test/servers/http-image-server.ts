import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { basename, join } from 'node:path';
import { Transform } from 'node:stream';

/** How the server misbehaves for one path. Plain delivery where nothing is set. */
export interface Behaviour {
  /** Answers with a redirect to this URL, with `status` or 302. */
  redirect?: string;
  status?: number;
  /** Cuts the connection after so many bytes of the body. */
  cutAfter?: number;
  /** Sends so many bytes of the body, then nothing more. */
  stallAfter?: number;
  bytesPerSecond?: number;
  /** Ignores Range, and says no ETag. */
  noRange?: boolean;
  /** Sends no Content-Length (chunked). */
  noLength?: boolean;
  /** Another ETag with each answer: the file changed meanwhile. */
  newTag?: boolean;
  /** Wants this `user:password`. */
  auth?: string;
  /** Only so many requests meet this behaviour, later ones are served plainly. */
  times?: number;
}

export interface SeenRequest {
  path: string;
  range: string | undefined;
  authorization: string | undefined;
  host: string | undefined;
}

export interface ImageServer extends AsyncDisposable {
  /** Without a slash at the end: `http://127.0.0.1:PORT`. */
  url: string;
  port: number;
  /** Every request so far. */
  requests: SeenRequest[];
  /** From now on, `path` (such as `/a.qcow2`) behaves so. */
  behave(path: string, behaviour: Behaviour): void;
  close(): Promise<void>;
}

/** A web server of image files: those right inside `folder`, with ranges (RFC 9110), as mirrors have it. Loopback, any free port. */
export async function startImageServer(
  folder: string,
  options: { tls?: { key: string; cert: string } } = {},
): Promise<ImageServer> {
  const requests: SeenRequest[] = [];
  const behaviours = new Map<string, Behaviour & { met: number }>();
  const sockets = new Set<Socket>();
  let answers = 0;

  async function serve(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const path = new URL(req.url ?? '/', 'http://x').pathname;
    requests.push({ path, range: req.headers.range, authorization: req.headers.authorization, host: req.headers.host });
    const known = behaviours.get(path);
    const how: Behaviour = known !== undefined && known.met++ < (known.times ?? Infinity) ? known : {};
    if (how.auth !== undefined && req.headers.authorization !== `Basic ${Buffer.from(how.auth).toString('base64')}`)
      return void res.writeHead(401).end();
    if (how.redirect !== undefined) return void res.writeHead(how.status ?? 302, { location: how.redirect }).end();
    if (how.status !== undefined) return void res.writeHead(how.status).end('no');
    const file = join(folder, basename(decodeURIComponent(path)));
    const found = await stat(file).catch(() => undefined);
    if (found?.isFile() !== true) return void res.writeHead(404).end('not found');
    const tag = `"${found.mtimeMs}-${found.size}${how.newTag === true ? `-${answers++}` : ''}"`;
    const asked = /^bytes=(\d+)-$/.exec(req.headers.range ?? '')?.[1];
    const ifRange = req.headers['if-range'];
    const from = asked !== undefined && how.noRange !== true && (ifRange === undefined || ifRange === tag) ? Number(asked) : 0;
    const headers: Record<string, string | number> = { 'content-type': 'application/octet-stream' };
    if (how.noRange !== true) Object.assign(headers, { etag: tag, 'accept-ranges': 'bytes' });
    if (how.noLength !== true) headers['content-length'] = found.size - from;
    if (from > 0) headers['content-range'] = `bytes ${from}-${found.size - 1}/${found.size}`;
    res.writeHead(from > 0 ? 206 : 200, headers);
    if (req.method === 'HEAD') return void res.end();
    const body = createReadStream(file, { start: from });
    body.on('error', () => res.destroy());
    res.on('close', () => body.destroy());
    body.pipe(shaped(how, () => res.destroy())).pipe(res);
  }

  const handler = (req: IncomingMessage, res: ServerResponse): void => void serve(req, res).catch(() => res.destroy());
  const server = options.tls === undefined ? createServer(handler) : createTlsServer(options.tls, handler);
  server.on('connection', socket => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  await new Promise<void>((done, failed) => server.once('error', failed).listen(0, '127.0.0.1', done));
  const { port } = server.address() as AddressInfo;
  const close = async (): Promise<void> => {
    if (!server.listening) return;
    const closed = new Promise<void>(done => server.close(() => done()));
    for (const socket of sockets) socket.destroy();
    await closed;
  };
  return {
    url: `${options.tls === undefined ? 'http' : 'https'}://127.0.0.1:${port}`,
    port,
    requests,
    behave: (path, behaviour) => void behaviours.set(path, { ...behaviour, met: 0 }),
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** Lets a body through until it is to be cut or to stall, and not faster than told. */
function shaped(how: Behaviour, cut: () => void): Transform {
  let sent = 0;
  const end = Math.min(how.cutAfter ?? Infinity, how.stallAfter ?? Infinity);
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      const piece = chunk.subarray(0, Math.max(0, end - sent));
      sent += piece.length;
      if (piece.length > 0) this.push(piece);
      if (sent < end) {
        if (how.bytesPerSecond === undefined) done();
        else setTimeout(done, (piece.length / how.bytesPerSecond) * 1000);
      } else if (how.stallAfter === undefined) setImmediate(cut);
    },
  });
}
