import assert from 'node:assert/strict';
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { controllerRoutes } from '../../shared/contract/controller.ts';
import type { Route } from '../../shared/contract/route.ts';
import { createClient } from '../../shared/http/client.ts';
import { Role } from '../../shared/model.ts';
import { type Api, done, type Service, WAIT } from '../servers/cistern.ts';
import { COMMAND, startProgram, userEnv } from './cli-process.ts';
import { dump, failsWith, type House, MiB, openHouse } from './house.ts';
import { ask, events, send } from './http.ts';

const ROUTES = Object.entries(controllerRoutes) as [string, Route][];

describe('who may do what', () => {
  let house: House;
  let admin: Api;
  const clients: Api[] = [];

  before(async function () {
    this.timeout(60_000);
    house = await openHouse({ hosts: ['host-1'] });
    admin = house.api;
    await house.addPool('fast');
  });
  after(async () => {
    for (const client of clients) client.close();
    await house?.[Symbol.asyncDispose]();
  });

  /** A new token, as a service that `ask` takes, and a client that uses it. */
  async function holder(name: string, role: Role, expiresAt?: string): Promise<{ service: Service; api: Api }> {
    const { token } = await admin.createToken({ body: { name, role, expiresAt } });
    const service = { ...house.cistern.controller, token };
    const api = createClient(controllerRoutes, { baseUrl: service.url, token });
    clients.push(api);
    return { service, api };
  }

  for (const role of ['reader', 'operator'] as const) {
    it(`a ${role} is let in where its role is enough, and told which one is needed where it is not`, async () => {
      const { service } = await holder(`every-route-${role}`, role);
      const before = await dump(admin);
      const rank = (one: Route['role']) => Role.options.indexOf(one as Role);
      const refused: string[] = [];
      for (const [name, route] of ROUTES) {
        if (route.outputStream === 'text/event-stream') continue;
        // what is let in fails all the same: on a body with nonsense, or at a thing that is not there
        const path = route.path.replace(':ref', 'no-such');
        const answer = route.body
          ? await send(service, route.method.toUpperCase(), path, { nonsense: 1 })
          : await ask(service, route.method.toUpperCase(), path);
        if (rank(route.role) <= rank(role)) assert.ok(![401, 403].includes(answer.status), `${name}: ${answer.text}`);
        else {
          assert.equal(answer.json?.code, 'FORBIDDEN', name);
          assert.equal(answer.status, 403);
          assert.match(String(answer.json?.detail), new RegExp(`needs the role ${route.role}; the token "every-route-${role}" has the role ${role}`)); // prettier-ignore
          refused.push(name);
        }
      }
      assert.equal(refused.length, ROUTES.filter(([, route]) => rank(route.role) > rank(role)).length);
      assert.deepEqual(await dump(admin), before);
    });
  }

  it('an operator does daily work, and what is done bears its name', async () => {
    const { api } = await holder('carol', 'operator');
    const made = await done(api.createVolumes({ body: { name: 'hers', size: MiB, primaryStorage: 'fast' } }, WAIT));
    assert.equal(made.by, 'carol');
    assert.equal((await admin.getOperation({ params: { ref: made.id } })).by, 'carol');
    const { items } = await api.listEvents({ query: { limit: 1000 } });
    assert.equal(items.find(event => event.resource?.id === made.id)?.by, 'carol');
    assert.deepEqual(
      items.filter(event => event.type === 'host.connected').map(event => event.by),
      [null],
      'what cistern sees by itself bears no name',
    );
    assert.ok(items.some(event => event.type === 'token.created' && event.by === 'admin' && event.message.includes('carol')));
    await admin.updateHost({ params: { ref: 'host-1' }, body: { state: 'maintenance' } });
    await admin.updateHost({ params: { ref: 'host-1' }, body: { state: 'enabled' } });
    const change = (await api.listEvents({ query: { limit: 1000 } })).items.at(-1)!;
    assert.deepEqual([change.type, change.by], ['host.enabled', 'admin']);
  });

  it('an operator neither repeats nor cancels what only an admin could have started', async () => {
    const { api } = await holder('dave', 'operator');
    const failed = await admin.addPrimaryStorage({ body: { name: 'bad', type: 'local', config: {} } }, WAIT);
    assert.equal(failed.state, 'failed');
    const ref = { params: { ref: failed.id } };
    const refused = failsWith('FORBIDDEN', /primary-storage.add operation needs the role admin; the token "dave" has the role operator/); // prettier-ignore
    await assert.rejects(api.retryOperation(ref), refused);
    await assert.rejects(api.cancelOperation(ref), refused);
    const again = await admin.retryOperation(ref, WAIT);
    assert.equal(again.by, 'admin');

    const own = await api.createVolumes({ body: { name: 'big', size: 60 * 2 ** 40, primaryStorage: 'fast' } }).catch((e: unknown) => e); // prettier-ignore
    assert.ok(own instanceof Error, 'no pool has so much room');
  });

  it('a token is shown once, kept as a hash, and opens nothing any more once it is deleted, streams included', async () => {
    const { service, api } = await holder('erin', 'reader');
    const { items } = await admin.listTokens();
    assert.deepEqual(
      items.filter(token => token.name === 'erin').map(({ role, expiresAt, by }) => ({ role, expiresAt, by })),
      [{ role: 'reader', expiresAt: null, by: 'admin' }],
    );
    assert.ok(!JSON.stringify(items).includes(service.token));
    const state = join(house.cistern.folder, 'controller/state');
    for (const file of readdirSync(state).filter(name => name.startsWith('cistern.db')))
      assert.ok(!readFileSync(join(state, file)).includes(service.token), file);

    await assert.rejects(admin.createToken({ body: { name: 'erin', role: 'admin' } }), failsWith('NAME_TAKEN', /token "erin"/));
    await assert.rejects(admin.createToken({ body: { name: 'admin', role: 'admin' } }), failsWith('NAME_TAKEN', /token file/));

    const stream = events(service, '/api/v1/events?after=0');
    assert.equal((await stream.next()).done, false);
    await admin.deleteToken({ params: { ref: 'erin' } });
    await assert.rejects(api.listHosts(), failsWith('UNAUTHORIZED', /none of this controller/));
    await assert.rejects(rest(stream), /terminated/);
    await assert.rejects(admin.deleteToken({ params: { ref: 'erin' } }), failsWith('NOT_FOUND', /token "erin"/));
  });

  it('a token that expires says so from then on, and what streams to its holder is cut', async () => {
    await assert.rejects(
      admin.createToken({ body: { name: 'late', role: 'reader', expiresAt: '2020-01-01T00:00:00Z' } }),
      failsWith('BAD_REQUEST', /over already/),
    );
    const { service, api } = await holder('frank', 'reader', new Date(Date.now() + 1500).toISOString());
    const stream = events(service, '/api/v1/events?after=0');
    assert.equal((await stream.next()).done, false);
    await assert.rejects(rest(stream), /terminated/);
    await assert.rejects(api.listHosts(), failsWith('UNAUTHORIZED', /the token "frank" expired at 20/));
  });

  it('tokens outlive a restart of the controller; the first one is replaced by removing its file', async function () {
    this.timeout(60_000);
    const { controller } = house.cistern;
    const { service } = await holder('grace', 'operator');
    const first = controller.token;
    await controller.stop();
    rmSync(join(house.cistern.folder, 'controller/state/token'));
    await controller.start();
    assert.notEqual(controller.token, first);
    assert.equal((await ask(controller, 'GET', '/api/v1/hosts')).status, 200);
    assert.equal((await ask({ ...controller, token: first }, 'GET', '/api/v1/hosts')).status, 401);
    assert.equal((await ask({ ...controller, token: service.token }, 'GET', '/api/v1/hosts')).status, 200);
  });

  it('the command makes, lists and deletes them, and prints the token alone, for a file', async function () {
    this.timeout(60_000);
    const env = userEnv(house.cistern);
    const run = (...args: string[]) => startProgram(COMMAND, args, env).ended;
    const made = await run('token', 'create', 'ci', '--role', 'reader', '--expires', '90d');
    assert.equal(made.code, 0, made.stderr);
    assert.match(made.stdout, /^[\w-]{43}\n$/);
    assert.match(made.stderr, /token ci has the role reader and expires at .*only this once/);
    const listed = await run('token', 'list');
    assert.match(listed.stdout, /ci\s+reader\s+20\d\d-.*Z\s+admin/);
    assert.ok(!listed.stdout.includes(made.stdout.trim()));
    const reader = { ...env, CISTERN_TOKEN: made.stdout.trim() };
    const refused = await startProgram(COMMAND, ['token', 'delete', 'ci'], reader).ended;
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /FORBIDDEN.*\n.*needs the role admin/);
    assert.equal((await run('token', 'delete', 'ci')).code, 0);
    assert.match((await startProgram(COMMAND, ['host', 'list'], reader).ended).stderr, /UNAUTHORIZED/);
  });
});

/** Reads a stream to its end. */
async function rest(stream: AsyncGenerator<unknown>): Promise<void> {
  for await (const _ of stream);
}
