import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { z } from 'zod';
import { routes } from '../../shared/contract/route.ts';
import { CisternError, type Problem, toProblem } from '../../shared/errors.ts';
import { createClient } from '../../shared/http/client.ts';

const table = routes({
  ping: {
    method: 'post',
    role: 'admin',
    path: '/ping',
    tag: 'test',
    summary: 'Answer',
    body: z.strictObject({}),
    status: 200,
    output: z.object({ n: z.int() }),
  },
});

describe('the HTTP client', () => {
  let server: Server;
  const sockets: Socket[] = [];
  let asked = 0;
  let problem: Problem | undefined;
  let trickles = false;
  before(async () => {
    server = createServer((req, res) => {
      req.resume();
      if (trickles) return;
      if (problem) res.statusCode = problem.status;
      res.setHeader('Content-Type', 'application/json').end(JSON.stringify(problem ?? { n: ++asked }));
    });
    server.on('connection', socket => sockets.push(socket));
    await once(server.listen(0, '127.0.0.1'), 'listening');
  });
  after(() => server.close());

  it('sends a request again that met a kept connection which the server was just closing', async () => {
    const client = createClient(table, { baseUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}` });
    assert.deepEqual(await client.ping({ body: {} }), { n: 1 });
    const again = client.ping({ body: {} });
    sockets[0]!.resetAndDestroy(); // before the request has reached the server
    assert.deepEqual(await again, { n: 2 });
    assert.equal(sockets.length, 2, 'over a connection of its own');
    client.close();
  });

  it('does not hide a server that ends new connections', async () => {
    server.once('connection', socket => socket.resetAndDestroy());
    const client = createClient(table, {
      baseUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
      unreachable: 'HOST_UNREACHABLE',
    });
    await assert.rejects(client.ping({ body: {} }), /ECONNRESET|EPIPE|socket hang up/);
    client.close();
  });

  it('waits no longer for an answer that comes byte by byte than for none', async () => {
    server.once('request', (_req: IncomingMessage, res: ServerResponse) => {
      const drip = setInterval(() => res.write(' '), 20);
      res.once('close', () => clearInterval(drip));
    });
    trickles = true;
    const client = createClient(table, {
      baseUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
      timeoutSeconds: 0.3,
    });
    await assert.rejects(client.ping({ body: {} }), { code: 'TIMEOUT', message: /no whole answer within 0.3 s$/ });
    trickles = false;
    client.close();
  });

  it('knows no code of errors that only every object has', async () => {
    problem = { ...toProblem(new CisternError('BUSY', 'x')), code: 'constructor' };
    const client = createClient(table, { baseUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}` });
    await assert.rejects(client.ping({ body: {} }), { code: 'INTERNAL', message: 'constructor: x' });
    client.close();
  });

  it('keeps both ends of what a service says without end', async () => {
    problem = {
      ...toProblem(new CisternError('BUSY', 'x')),
      detail: `first ${'x'.repeat(2 ** 20)} last`,
      action: 'y'.repeat(2 ** 20),
    };
    const client = createClient(table, { baseUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}` });
    await assert.rejects(client.ping({ body: {} }), (error: CisternError) => {
      assert.match(error.message, /^first x{3000,}[^]*x last$/);
      assert.ok(error.message.length <= 4096 && error.action!.length <= 4096);
      return true;
    });
    client.close();
  });
});
