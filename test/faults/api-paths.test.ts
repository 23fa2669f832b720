/** Hostile strings in every path, query and body of the controller's API: each is answered with a code, and leads nowhere. */
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { request } from 'node:http';
import fc from 'fast-check';
import { controllerRoutes } from '../../shared/contract/controller.ts';
import type { Route } from '../../shared/contract/route.ts';
import { CisternError, ERRORS, Problem } from '../../shared/errors.ts';
import type { Client } from '../../shared/http/client.ts';
import { type Cistern, startCistern } from '../servers/cistern.ts';
import { type Hints, hostileStrings, spoil, valuesOf } from './paths/hostile.ts';
import { type GuardedPlace, guardedPlace } from './paths/place.ts';

const RUNS = 60;
const AT_ONCE = 6;

describe('hostile requests to a controller', () => {
  let stack: AsyncDisposableStack;
  let place: GuardedPlace;
  let cistern: Cistern;
  const seed = Number(process.env['CISTERN_SEED'] ?? randomInt(2 ** 31));
  const routes = Object.entries(controllerRoutes as Record<string, Route>).filter(
    ([, route]) => !route.bodyStream && !route.outputStream,
  );

  before(async function () {
    this.timeout(180_000);
    stack = new AsyncDisposableStack();
    place = stack.use(guardedPlace(['cistern', 'pools', 'stores']));
    const env = { HOME: place.at('home') };
    cistern = stack.use(await startCistern(place.at('cistern'), { env: { controller: env, agents: env } }));
  });
  after(() => stack.disposeAsync());

  const strings = (): fc.Arbitrary<string> => hostileStrings({ file: place.at('precious'), trap: place.at('trap') });

  it('are each carried out or refused with a code, and change nothing beside pools and stores', async function () {
    this.timeout(150_000);
    const before = place.guarded();
    const tally: Record<string, number> = {};
    const config = fc.constantFrom(
      { path: place.at('pools/a') },
      { path: place.at('stores') },
      { server: '127.0.0.1', export: '/x' },
    );
    const hints: Hints = {
      config,
      type: fc.constantFrom('local', 'nfs', 'dir', 'sftp'),
      name: fc.constantFrom('one', 'two', 'three'),
      // no agent listens there, and no host of the world is asked
      url: fc.constantFrom('http://127.0.0.1:9', 'http://127.0.0.1:9/disk.raw'),
      token: fc.constant('a token that is long enough'),
      ref: fc.constantFrom('one', 'default', 'host-1'),
      wait: fc.constant('0'),
    };
    const inputs = routes.map(([name, { params, query, body }]) => {
      const schemas = Object.entries({ params, query, body }).flatMap(([key, schema]) =>
        schema ? [[key, schema] as const] : [],
      );
      const parts = schemas.map(([key, schema]) => [key, valuesOf(schema, hints)] as const);
      return spoil(fc.record(Object.fromEntries(parts)), strings()).map(input => ({ name, input: withRef(input) }));
    });
    const ask = async ({ name, input }: { name: string; input: unknown }): Promise<void> => {
      const call = cistern.api[name as keyof Client<typeof controllerRoutes>] as (input: unknown) => Promise<unknown>;
      const code = await call(input).then(
        () => 'taken',
        (error: unknown) => (error instanceof CisternError ? error.code : assert.fail(`${name}: ${String(error)}`)),
      );
      tally[code] = (tally[code] ?? 0) + 1;
      assert.ok(code === 'taken' || (code in ERRORS && code !== 'INTERNAL'), `${code}: ${JSON.stringify([name, input])}`);
    };
    const property = fc.asyncProperty(fc.array(fc.oneof(...inputs), { minLength: AT_ONCE, maxLength: AT_ONCE }), async batch => {
      await Promise.all(batch.map(ask));
      assert.equal((await cistern.api.healthz()).status, 'ok');
    });
    await fc.assert(property, { seed, numRuns: RUNS, endOnFailure: true });
    assert.deepEqual(place.guarded(), before);
    console.log(`      CISTERN_SEED=${seed}: ${RUNS * AT_ONCE} requests: ${JSON.stringify(tally)}`);
    assert.ok((tally['taken'] ?? 0) > 0, 'some of it was done');
  });

  it('say nothing but a problem where a path is not as a client would write it', async function () {
    this.timeout(60_000);
    const paths = ['/api/v1/volumes/', '/api/v1/images/', '/api/v1/operations/', '/docs/', '/openapi.json/', '/'];
    const property = fc.asyncProperty(fc.constantFrom(...paths), strings(), async (path, text) => {
      // as they are, but for what no request line can hold
      const raw = Buffer.from(path + text.slice(0, 2000))
        .toString('latin1')
        .replace(/[^\x21-\x7e]/g, '%0a');
      const { status, body } = await get(cistern.controller, raw);
      assert.ok(!body.includes('precious '), raw);
      if (status >= 400) {
        const { code } = Problem.parse(JSON.parse(body));
        assert.ok(code in ERRORS && code !== 'INTERNAL', `${code}: ${raw}`);
      }
    });
    await fc.assert(property, { seed, numRuns: 200, endOnFailure: true });
    for (const service of [cistern.controller, ...cistern.agents])
      assert.deepEqual(
        service.log.filter(line => /failed unexpectedly/.test(line)),
        [],
      );
  });
});

/** The client takes strings only where they go into a path. */
function withRef(input: unknown): unknown {
  const { params, ...rest } = input as { params?: { ref: unknown } };
  return params === undefined
    ? rest
    : { ...rest, params: { ref: typeof params.ref === 'string' ? params.ref : JSON.stringify(params.ref) } };
}

/** One GET whose path is sent as it is: fetch would resolve its dots first. */
function get({ url, token }: { url: string; token: string }, path: string): Promise<{ status: number; body: string }> {
  const { hostname, port } = new URL(url);
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number; body: string }>();
  const req = request({ hostname, port, path, headers: { Authorization: `Bearer ${token}` }, timeout: 30_000 }, res => {
    let body = '';
    res.setEncoding('utf8').on('data', (piece: string) => (body += piece));
    res.on('end', () => resolve({ status: res.statusCode ?? 0, body })).on('error', reject);
  });
  req.on('timeout', () => req.destroy(new Error(`no answer to ${path}`))).on('error', reject);
  req.end();
  return promise;
}
