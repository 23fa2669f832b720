import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { controllerRoutes } from '../../shared/contract/controller.ts';
import type { Route } from '../../shared/contract/route.ts';
import { ERRORS } from '../../shared/errors.ts';
import { done, WAIT } from '../servers/cistern.ts';
import { dump, filesBelow, type House, makeDisk, MiB, openHouse, until } from './house.ts';
import { type Answer, ask, send } from './http.ts';
import { checkMetrics } from './prometheus.ts';

const ROUTES = Object.entries(controllerRoutes) as [string, Route][];
const SECRET = 'MARKER-PASSWORD-5b2e';
const SIGNATURE = 'MARKER-SIGNATURE-91aa';

describe('the API of the controller', () => {
  let house: House;
  let api: House['api'];
  const controller = () => house.cistern.controller;

  before(async function () {
    this.timeout(60_000);
    house = await openHouse({ hosts: ['host-1'], sshd: true });
    api = house.api;
    await house.addStore('depot');
    await house.addSftp('vault');
    await house.addPool('fast');
    await makeDisk(join(house.files, 'disk.raw'), 16 * MiB, 'api');
    await done(house.importFile('disk.raw', { name: 'base', backupStorages: ['depot', 'vault'] }));
    await done(api.createVolumes({ body: { name: 'vm', image: 'base', primaryStorage: 'fast' } }, WAIT));
    await done(api.createVolumes({ body: { name: 'set-2', size: MiB, primaryStorage: 'fast' } }, WAIT));
  });
  after(() => house?.[Symbol.asyncDispose]());

  const pathOf = (route: Route): string => route.path.replace(':ref', 'base');

  function isProblem(answer: Answer, code: keyof typeof ERRORS, detail = /./): void {
    const { json, status } = answer;
    assert.equal(json?.code, code, answer.text.slice(0, 300));
    assert.equal(status, ERRORS[code].status);
    assert.match(answer.headers.get('content-type')!, /^application\/problem\+json/);
    assert.match(String(json.detail), detail);
    assert.ok(String(json.action).length > 10, 'it does not say what to do');
    assert.equal(json.type, `urn:cistern:error:${code}`);
  }

  /** What `work` asks for is refused, and changes nothing that any list shows. */
  async function changesNothing(work: () => Promise<void>): Promise<void> {
    const before = await dump(api);
    await work();
    assert.deepEqual(await dump(api), before);
  }

  it('wants its token on every route but those that are open', () =>
    changesNothing(async () => {
      for (const [name, route] of ROUTES) {
        for (const Authorization of ['', 'Bearer ', `Bearer ${'x'.repeat(43)}`, `Basic ${controller().token}`]) {
          const answer = await ask(controller(), route.method.toUpperCase(), pathOf(route), { headers: { Authorization } });
          if (route.role === 'anyone') assert.equal(answer.status, 200, name);
          else {
            isProblem(answer, 'UNAUTHORIZED', /token/);
            assert.equal(answer.headers.get('www-authenticate'), 'Bearer');
          }
        }
      }
    }));

  it('takes the token of an agent for nothing', async () => {
    const { token } = house.cistern.agents[0]!;
    isProblem(await ask(controller(), 'GET', '/api/v1/hosts', { headers: { Authorization: `Bearer ${token}` } }), 'UNAUTHORIZED');
    const batch = { hostId: '01890000-0000-7000-8000-000000000000', epoch: 1, seq: 1, reports: [] };
    for (const Authorization of [`Bearer ${token}`, `Bearer ${controller().token}`])
      isProblem(
        await send(controller(), 'POST', '/agent/v1/reports', batch, { Authorization }),
        'UNAUTHORIZED',
        /not that of a host/,
      );
  });

  it('refuses unknown fields, other types, and bodies that are not JSON, on every route with a body', () =>
    changesNothing(async () => {
      for (const [name, route] of ROUTES.filter(([, one]) => one.body)) {
        const method = route.method.toUpperCase();
        const post = (body: string, type = 'application/json') =>
          ask(controller(), method, pathOf(route), { body, headers: { 'Content-Type': type } });
        isProblem(await post('{"nonsense": 1}'), 'BAD_REQUEST', /nonsense/);
        isProblem(await post('[]'), 'BAD_REQUEST', /body/);
        isProblem(await post('{"name": '), 'BAD_REQUEST', /not JSON/);
        isProblem(
          await post('{"name": 7, "size": "big", "image": {}, "volumes": "all", "primaryStorage": 1, "cluster": []}'),
          'BAD_REQUEST',
        );
        isProblem(
          await post('{"primaryStorage": "fast"}', 'application/x-www-form-urlencoded'),
          'BAD_REQUEST',
          /is application\/x-www-form-urlencoded/,
        );
        isProblem(await post(JSON.stringify({ name: 'x'.repeat(2 * MiB) })), 'TOO_LARGE', /1048576/);
        assert.ok(name);
      }
    }));

  it('names every field that is wrong', () =>
    changesNothing(async () => {
      const volume = await send(controller(), 'POST', '/api/v1/volumes', { name: '../x', size: -1, count: 5000, kind: 'tape' });
      for (const field of ['name', 'size', 'count', 'kind']) isProblem(volume, 'BAD_REQUEST', new RegExp(`\\b${field}: `));
      isProblem(
        await send(controller(), 'POST', '/api/v1/volumes', { name: 'v' }),
        'BAD_REQUEST',
        /size: an empty volume needs a size/,
      );
      isProblem(await send(controller(), 'POST', '/api/v1/volumes', { name: 'v', size: 1000 }), 'BAD_REQUEST', /512/);
      isProblem(
        await send(controller(), 'POST', '/api/v1/volumes', { name: 'v', image: 'base', size: MiB }),
        'BAD_REQUEST',
        /less than image base/,
      );
      isProblem(
        await send(controller(), 'POST', '/api/v1/images', { source: { type: 'url', url: 'ftp://x/y' } }),
        'BAD_REQUEST',
        /name.*source\.url/,
      );
      const sealed = { name: 'v', source: { type: 'url', url: `http://u:${SECRET}@127.0.0.1/x` } };
      isProblem(await send(controller(), 'POST', '/api/v1/images', sealed), 'BAD_REQUEST', /user and password/);
      isProblem(
        await send(controller(), 'POST', '/api/v1/clusters', { name: '01890000-0000-7000-8000-000000000000' }),
        'BAD_REQUEST',
        /looks like an id/,
      );
      const key = { 'Idempotency-Key': 'two words' };
      isProblem(
        await send(controller(), 'POST', '/api/v1/volumes', { name: 'v', size: MiB }, key),
        'BAD_REQUEST',
        /Idempotency-Key/,
      );
    }));

  it('refuses bad pages and filters on every list', () =>
    changesNothing(async () => {
      for (const [, route] of ROUTES.filter(([name]) => name.startsWith('list'))) {
        const get = (query: string) => ask(controller(), 'GET', `${route.path}?${query}`);
        for (const query of ['limit=0', 'limit=1001', 'limit=many', 'limit=1&limit=2', 'page=2'])
          isProblem(await get(query), 'BAD_REQUEST', /query/);
        isProblem(await get('cursor=rubbish'), 'BAD_REQUEST', /cursor/);
        for (const filter of ['state', 'status', 'kind'].filter(one => one !== 'kind' && one in route.query!.shape))
          isProblem(await get(`${filter}=sleeping`), 'BAD_REQUEST', new RegExp(filter));
      }
    }));

  it('says what there is not, by the name that was given', () =>
    changesNothing(async () => {
      for (const [, route] of ROUTES.filter(
        ([, one]) => one.path.includes(':ref') && (one.method === 'get' || one.method === 'delete'),
      ))
        isProblem(
          await ask(controller(), route.method.toUpperCase(), route.path.replace(':ref', 'no-such')),
          'NOT_FOUND',
          /no-such/,
        );
      const none = [
        ['volumes', { name: 'v', image: 'no-such' }],
        ['volumes', { name: 'v', size: MiB, primaryStorage: 'no-such' }],
        ['volumes', { name: 'v', size: MiB, host: 'no-such' }],
        ['volumes/delete', { volumes: ['vm', 'no-such'] }],
        ['cache', { image: 'base', primaryStorage: 'no-such' }],
        ['trash/empty', { primaryStorage: 'no-such' }],
        ['images', { name: 'i', source: { type: 'object', backupStorage: 'no-such', path: 'x' } }],
        ['images', { name: 'i', source: { type: 'upload' }, backupStorages: ['no-such'] }],
        ['primary-storages', { name: 'p', type: 'local', config: {}, clusters: ['no-such'] }],
      ] as const;
      for (const [path, body] of none)
        isProblem(await send(controller(), 'POST', `/api/v1/${path}`, body), 'NOT_FOUND', /no-such/);
      isProblem(await ask(controller(), 'GET', '/api/v1/tapes'), 'NOT_FOUND', /no such route/);
      isProblem(await ask(controller(), 'PUT', '/api/v1/volumes'), 'NOT_FOUND', /PUT \/api\/v1\/volumes/);
      isProblem(await ask(controller(), 'GET', '/api/v1/volumes/%ff'), 'BAD_REQUEST');
      for (const side of ['primary', 'backup'])
        isProblem(
          await send(controller(), 'POST', `/api/v1/${side}-storages`, { name: 's', type: 'tape' }),
          'DRIVER_UNKNOWN',
          /tape.*(local|dir)/,
        );
    }));

  it('refuses names that are taken', () =>
    changesNothing(async () => {
      const { url, token } = house.cistern.agents[0]!;
      const taken = [
        ['volumes', { name: 'vm', size: MiB }],
        ['images', { name: 'base', source: { type: 'upload' } }],
        ['volumes/vm/upload', { name: 'base' }],
        ['clusters', { name: 'default' }],
        ['hosts', { name: 'host-1', url: 'http://127.0.0.1:9', token }],
        ['hosts', { name: 'host-9', url: `${url}/`, token }],
        ['primary-storages', { name: 'fast', type: 'local', config: {} }],
        ['backup-storages', { name: 'depot', type: 'dir', config: {} }],
      ] as const;
      for (const [path, body] of taken)
        isProblem(await send(controller(), 'POST', `/api/v1/${path}`, body), 'NAME_TAKEN', /already/);
      isProblem(await send(controller(), 'POST', '/api/v1/volumes', { name: 'set', size: MiB, count: 3 }), 'NAME_TAKEN', /set-2/);
    }));

  it('does not remove what is in use', () =>
    changesNothing(async () => {
      for (const [path, detail] of [
        ['clusters/default', /host-1/],
        ['hosts/host-1', /vm/],
        ['primary-storages/fast', /vm/],
        ['backup-storages/depot', /base/],
      ] as const)
        isProblem(await ask(controller(), 'DELETE', `/api/v1/${path}`), 'IN_USE', detail);
    }));

  it('describes itself: an OpenAPI document without a loose end, and a page to read', async () => {
    const { json } = await ask(controller(), 'GET', '/openapi.json', { headers: { Authorization: '' } });
    assert.equal(json!.openapi, '3.1.0');
    const refs = [...JSON.stringify(json).matchAll(/"\$ref":"([^"]+)"/g)].map(match => match[1]!);
    assert.ok(refs.length > 20);
    for (const ref of new Set(refs)) {
      let node: unknown = json;
      for (const part of ref.split('/').slice(1)) node = (node as Record<string, unknown> | undefined)?.[part];
      assert.ok(node, `${ref} leads nowhere`);
    }
    const operations = Object.values(json!.paths as Record<string, Record<string, { operationId: string; responses: object }>>).flatMap(path => Object.values(path)); // prettier-ignore
    assert.deepEqual(operations.map(one => one.operationId).sort(), ROUTES.map(([name]) => name).sort()); // prettier-ignore
    const { text, headers } = await ask(controller(), 'GET', '/docs', { headers: { Authorization: '' } });
    assert.match(headers.get('content-type')!, /^text\/html/);
    for (const [name, route] of ROUTES) assert.ok(text.includes(route.path.replace(/:(\w+)/g, '{$1}')), name);
  });

  it('tells Prometheus where the agents are and what it counts, as the agents do', async () => {
    const { text } = await ask(controller(), 'GET', '/sd/agents');
    const [agent] = house.cistern.agents;
    assert.deepEqual(JSON.parse(text), [
      {
        targets: [new URL(agent!.url).host],
        labels: { host: 'host-1', cluster: 'default', __scheme__: 'http', __metrics_path__: '/metrics' },
      },
    ]);
    const ours = checkMetrics((await ask(controller(), 'GET', '/metrics')).text, 'cistern_controller_');
    for (const name of ['operations_total', 'operation_duration_seconds', 'hosts', 'primary_storage_bytes', 'resources'])
      assert.ok(ours.has(`cistern_controller_${name}`), name);
    const theirs = checkMetrics((await ask(agent!, 'GET', '/metrics')).text, 'cistern_agent_');
    for (const name of ['tasks_total', 'task_duration_seconds', 'workers']) assert.ok(theirs.has(`cistern_agent_${name}`), name);
  });

  describe('keeps secrets', () => {
    it('out of every answer, log, file and command line, also where things go wrong', async function () {
      this.timeout(90_000);
      const { host, port, user, hostKey, path, privateKey } = house.sshd;
      const wrong = await api.addBackupStorage({ body: { name: 'wrong', type: 'sftp', config: { host, port, user, hostKey, path, password: SECRET } } }, WAIT); // prettier-ignore
      assert.equal(wrong.error?.code, 'STORE_AUTH', wrong.error?.detail);
      // a setting that the driver does not know, under a name that it does not know
      const odd = await api.addBackupStorage({ body: { name: 'odd', type: 'sftp', config: { host, pasword: SECRET } } }, WAIT);
      assert.equal(odd.error?.code, 'STORE_CONFIG', odd.error?.detail);
      const missing = await api.importImage(
        { body: { name: 'm', source: { type: 'url', url: `${house.web.url}/none.raw?sig=${SIGNATURE}` } } },
        WAIT,
      );
      assert.equal(missing.error?.code, 'URL_FAILED');
      assert.doesNotMatch(missing.error!.detail, /MARKER/);

      // an upload to the SSH server that is under way: everything that runs shows its command line
      house.web.behave('/disk.raw', { bytesPerSecond: 16 * MiB });
      const secrets = [SECRET, SIGNATURE, privateKey.split('\n')[2]!, controller().token, house.cistern.agents[0]!.token];
      const { id } = await api.importImage({ body: { name: 'moving', source: { type: 'url', url: `${house.web.url}/disk.raw?sig=${SIGNATURE}` }, backupStorages: ['vault'] } }); // prettier-ignore
      let sawSsh = false;
      await until('the end of the import', async () => {
        for (const line of commandLines()) {
          sawSsh ||= /\bssh\b|sftp/.test(line) && line.includes(String(port));
          for (const secret of secrets) assert.ok(!line.includes(secret), `a command line shows a secret: ${line}`);
        }
        return (await api.getOperation({ params: { ref: id } })).state === 'succeeded';
      });
      assert.ok(sawSsh, 'no ssh was seen at work');

      const answers = JSON.stringify(await dump(api)) + JSON.stringify(await api.listEvents({ query: { limit: 1000 } })) + (await ask(controller(), 'GET', '/metrics')).text; // prettier-ignore
      for (const secret of secrets) assert.ok(!answers.includes(secret), 'an answer of the API holds a secret');
      for (const service of [controller(), ...house.cistern.agents]) {
        const log = service.log.filter(line => !/a (new )?token.* was made|"token":/.test(line)).join('\n');
        for (const secret of secrets) assert.ok(!log.includes(secret), `a log holds a secret: ${log.split('\n').find(line => line.includes(secret))}`); // prettier-ignore
      }
      await controller().stop();
      await house.cistern.agents[0]!.stop();
      const mayHold = /(^|\/)(token|secret\.key|config\.json|controller\.json)$/;
      for (const folder of ['controller', 'host-1'].map(name => join(house.cistern.folder, name, 'state'))) {
        for (const file of filesBelow(folder).filter(name => !mayHold.test(name))) {
          const bytes = readFileSync(join(folder, file));
          for (const secret of secrets) assert.ok(!bytes.includes(secret), `${folder}/${file} holds a secret`);
        }
      }
    });
  });
});

/** What every process on the machine shows of its command line. */
function commandLines(): string[] {
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name) && Number(name) !== process.pid)
    .map(pid => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
      } catch {
        return ''; // it ended meanwhile
      }
    });
}
