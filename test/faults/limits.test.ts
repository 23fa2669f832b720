/** Clients that are slow, silent, huge or many: the services go on answering, and give back what such clients took. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { request } from 'node:http';
import { connect, type Socket } from 'node:net';
import { LIMITS } from '../../shared/http/limits.ts';
import { createStrangers } from '../../shared/http/strangers.ts';
import { ask } from '../e2e/http.ts';
import { type House, openHouse, until } from '../e2e/house.ts';
import type { Service } from '../servers/cistern.ts';

/** More than the services ever need for themselves. */
const SPARE = 40;

describe('rude clients', () => {
  let house: House;
  before(async () => {
    house = await openHouse();
  });
  after(() => house?.[Symbol.asyncDispose]());

  const services = (): [string, Service, string][] => [
    ['controller', house.cistern.controller, '/api/v1/hosts'],
    ['agent', house.cistern.agents[0]!, '/v1/facts'],
  ];
  const memory = (service: Service): number =>
    Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${service.pid}/status`, 'utf8'))![1]) * 1024;
  const descriptors = (service: Service): number => readdirSync(`/proc/${service.pid}/fd`).length;

  /** Opens a connection, says `text`, and collects what comes back until the service closes it. */
  function speak(service: Service, text: string | Buffer): { socket: Socket; closed: Promise<string> } {
    const { hostname, port } = new URL(service.url);
    const socket = connect(Number(port), hostname);
    let answer = '';
    socket.on('data', chunk => (answer += chunk.toString()));
    socket.on('error', () => undefined); // a reset is an answer, too
    if (text.length > 0) socket.write(text);
    return { socket, closed: new Promise(resolve => socket.once('close', () => resolve(answer))) };
  }
  const head = (service: Service, method: string, path: string, ...headers: string[]): string =>
    [`${method} ${path} HTTP/1.1`, 'Host: x', `Authorization: Bearer ${service.token}`, ...headers, '', ''].join('\r\n');

  /** `rude` is done to each service; then a good client is answered, and the descriptors come back. */
  function survives(what: string, rude: (service: Service, path: string) => Promise<void>): void {
    it(what, async function () {
      this.timeout(120_000);
      const one = async ([name, service, path]: [string, Service, string]): Promise<void> => {
        const before = descriptors(service);
        await rude(service, path);
        assert.equal((await ask(service, 'GET', path)).status, 200, name);
        await until(`${name} gives descriptors back`, () => descriptors(service) <= before + SPARE);
      };
      await Promise.all(services().map(one));
    });
  }

  survives('who says nothing, or only half a request, is told so in time and cut', async service => {
    const silent = Array.from({ length: 50 }, () => speak(service, ''));
    const half = Array.from({ length: 50 }, () => speak(service, 'GET /healthz HTTP/1.1\r\nHost:'));
    const answers = await Promise.all([...silent, ...half].map(one => one.closed));
    for (const answer of answers) if (answer !== '') assert.match(answer, /^HTTP\/1\.1 408 [^]*"code":"TIMEOUT"/);
    assert.ok(answers.filter(answer => answer !== '').length >= 50, 'half a request gets no answer');
  });

  survives('a body that trickles is not waited for', async service => {
    const path = service === house.cistern.controller ? '/api/v1/volumes' : '/v1/tasks';
    const rude = Array.from({ length: 20 }, () =>
      speak(service, head(service, 'POST', path, 'Content-Type: application/json', 'Content-Length: 1000') + '{'),
    );
    for (const answer of await Promise.all(rude.map(one => one.closed)))
      assert.match(answer, /^HTTP\/1\.1 5?[0-9]+ [^]*the body of the request was not there within/);
  });

  survives('headers without end are refused', async (service, path) => {
    const many = Array.from({ length: 10_000 }, (_, i) => `X-${i}: ${i}`);
    const long = `X-Long: ${'x'.repeat(2 ** 20)}`;
    for (const headers of [many, [long]]) {
      const answer = await speak(service, head(service, 'GET', path, ...headers)).closed;
      if (answer !== '') assert.match(answer, /^HTTP\/1\.1 431 [^]*"code":"TOO_LARGE"/); // else it was reset while it still spoke
    }
    const url = await speak(service, head(service, 'GET', `${path}?${'x'.repeat(2 ** 16)}`)).closed;
    if (url !== '') assert.match(url, /^HTTP\/1\.1 431 /);
  });

  survives('gigantic and deep JSON is refused', async service => {
    const path = service === house.cistern.controller ? '/api/v1/volumes' : '/v1/tasks';
    const post = (body: string) => ask(service, 'POST', path, { body, headers: { 'Content-Type': 'application/json' } });
    assert.equal((await post('['.repeat(100_000) + ']'.repeat(100_000))).status, 400);
    assert.equal((await post(`{"a":`.repeat(100_000) + '1' + '}'.repeat(100_000))).status, 400);
    assert.equal((await post(JSON.stringify({ name: 'x'.repeat(8 * 2 ** 20) }))).status, 413);
  });

  survives('a body in chunks without end is cut at the limit', async service => {
    const path = service === house.cistern.controller ? '/api/v1/volumes' : '/v1/tasks';
    const { socket, closed } = speak(
      service,
      head(service, 'POST', path, 'Content-Type: application/json', 'Transfer-Encoding: chunked'),
    );
    const chunk = `10000\r\n${' '.repeat(0x10000)}\r\n`;
    const more = (): void => {
      while (!socket.destroyed && socket.write(chunk));
    };
    socket.on('drain', more);
    more();
    const answer = await closed;
    if (answer !== '') assert.match(answer, /^HTTP\/1\.1 413 [^]*"code":"TOO_LARGE"/); // else it was reset while it still spoke
    assert.ok(socket.bytesWritten < 64 * 2 ** 20, `${socket.bytesWritten} bytes were taken`);
  });

  survives('what is no HTTP gets a problem document', async service => {
    for (const text of ['\x15\x03\x01\x02\0\x01\0\x01\xfc', 'EHLO x\r\n\r\n', 'GET / HTTP/9.9\r\n\r\n']) {
      const answer = await speak(service, Buffer.from(text, 'latin1')).closed;
      assert.match(answer, /^HTTP\/1\.1 400 Bad Request\r\nContent-Type: application\/problem\+json[^]*"code":"BAD_REQUEST"/);
    }
  });

  survives('half a TLS handshake is cut in time', async service => {
    const begun = '\x16\x03\x01\x02\0\x01\0\x01\xfc'; // plain nonsense to a service that has no certificate
    assert.match(await speak(service, Buffer.from(begun, 'latin1')).closed, /^$|^HTTP\/1\.1 400 /);
  });

  survives('two thousand connections at once are let go again', async (service, path) => {
    // they say something: a silent one that the kernel dropped for its full queue would never hear that it has no connection
    const flood = Array.from({ length: 2000 }, () => speak(service, 'G'));
    assert.equal((await ask(service, 'GET', path)).status, 200, 'not answered beside the flood');
    await Promise.all(flood.map(one => one.closed));
  });

  survives('who asks a thousand things at once without a token, and reads no answer, is cut', async service => {
    const path = service === house.cistern.controller ? '/docs' : '/metrics';
    const before = memory(service);
    const rude = Array.from({ length: 20 }, () => {
      const one = speak(service, `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`.repeat(1000));
      one.socket.pause();
      return one;
    });
    await Promise.all(rude.map(one => once(one.socket, 'ready')));
    assert.equal((await ask(service, 'GET', '/healthz')).status, 200);
    const taken = memory(service) - before;
    assert.ok(taken < 100 * 2 ** 20, `${Math.round(taken / 2 ** 20)} MiB are held for who reads nothing`);
    for (const { socket } of rude) socket.resume();
    for (const answer of await Promise.all(rude.map(one => one.closed)))
      assert.ok(answer.split('HTTP/1.1 200').length <= 17, 'more were answered than may be under way at once');
  });

  survives('clients that go away in the middle leave nothing', async (service, path) => {
    for (let i = 0; i < 200; i++) {
      const { socket } = speak(service, head(service, i % 2 === 0 ? 'GET' : 'POST', path, 'Content-Length: 5'));
      socket.end();
      socket.destroy();
    }
    await ask(service, 'GET', path);
  });

  it('event streams are bounded in number, and those that nobody reads are cut', async function () {
    this.timeout(120_000);
    const { controller } = house.cistern;
    const { hostname, port } = new URL(controller.url);
    const open = () =>
      new Promise<{ status: number; end(): void }>((resolve, reject) => {
        const headers = { Authorization: `Bearer ${controller.token}`, Accept: 'text/event-stream' };
        const req = request({ hostname, port, path: '/api/v1/events', headers, agent: false }, res => {
          res.pause();
          resolve({ status: res.statusCode!, end: () => void req.destroy() });
        });
        req.on('error', reject).end();
      });
    const streams = [];
    for (let batch = 0; batch < 21; batch++) streams.push(...(await Promise.all(Array.from({ length: 50 }, open))));
    const refused = streams.filter(one => one.status === 429).length;
    assert.equal(streams.filter(one => one.status === 200).length, 1000);
    assert.equal(refused, 50);
    assert.equal((await ask(controller, 'GET', '/api/v1/hosts')).status, 200);
    for (const stream of streams) stream.end();
    await until('room for streams again', async () => {
      const one = await open();
      one.end();
      return one.status === 200;
    });
  });
});

describe('wrong tokens', () => {
  it('are counted by address within a window, and an address is told of once in it', () => {
    let at = 0;
    const told: string[] = [];
    const strangers = createStrangers(
      address => told.push(address),
      () => at,
    );
    for (let i = 0; i < 300; i++) assert.equal(strangers.seen('a'), 0);
    assert.equal(strangers.seen('a'), 10);
    assert.equal(strangers.seen('b'), 0);
    at = 9_500;
    assert.equal(strangers.seen('a'), 1);
    at = 10_000;
    assert.equal(strangers.seen('a'), 0);
    assert.deepEqual(told, ['a']);
  });

  it('the limits leave room for what people do', () => {
    assert.ok(LIMITS.connections > 1000 && LIMITS.headersMs >= 5000 && LIMITS.headerBytes >= 8192);
  });
});
