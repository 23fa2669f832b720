import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { agentRoutes } from '../../shared/contract/agent.ts';
import { createClient } from '../../shared/http/client.ts';
import { newId } from '../../shared/id.ts';
import { type House, makeDisk, MiB, NO_SCHEDULES, openHouse, until } from '../e2e/house.ts';
import { done, type Service, WAIT } from '../servers/cistern.ts';
import { argv, workersOf } from './crash/blow.ts';

describe('hosts and workers that are away when it matters', () => {
  let house: House;
  let api: House['api'];
  let pool: string;
  let poolId: string;
  let host: Service;

  before(async function () {
    this.timeout(120_000);
    house = await openHouse({ hosts: ['host-1', 'host-2'], controller: { taskRetrySeconds: 3, schedules: NO_SCHEDULES } });
    api = house.api;
    host = house.cistern.agents[0]!;
    await house.addStore('depot');
    pool = (await house.addPool('fast'))(1);
    poolId = (await api.getPrimaryStorage({ params: { ref: 'fast' } })).id;
    await makeDisk(join(house.files, 'disk.raw'), 16 * MiB, 'away');
    await done(house.importFile('disk.raw', { name: 'base' }));
  });
  after(() => house?.[Symbol.asyncDispose]());

  const poolWorker = () =>
    until('the worker of the pool', async () => (await workersOf(host.pid)).find(pid => argv(pid).includes(poolId)));
  const hasTask = async (kind: string) => {
    const agent = createClient(agentRoutes, { baseUrl: host.url, token: host.token });
    try {
      await until(`a task ${kind}`, async () => (await agent.listTasks()).items.some(task => task.kind === kind && task.finishedAt === null)); // prettier-ignore
      // tasks are handed on in their order: once a later one is accepted, this one has gone to its worker
      const store = { id: newId(), type: 'dir', config: { path: '/no/such/folder' } };
      await agent.createTask({ body: { id: newId(), command: { kind: 'store.connect', input: { store } } } });
    } finally {
      agent.close();
    }
  };

  it('ends the workers of an agent that died before the next one takes work, and removes their temporary files', async () => {
    const pid = await poolWorker();
    const folder = join(house.cistern.folder, 'host-1/state/tmp');
    assert.ok(readdirSync(folder).length > 0);
    process.kill(pid, 'SIGSTOP'); // it cannot even notice that its agent is gone
    await host.kill();
    const before = readdirSync(folder);
    await host.start();
    assert.deepEqual(argv(pid).filter(Boolean), [], 'gone, or waited for only');
    const left = existsSync(folder) ? readdirSync(folder) : [];
    assert.deepEqual(left.filter(name => before.includes(name)), []); // prettier-ignore
  });

  it('takes into its books an image that a host finished when nobody could tell it any more to stop', async () => {
    await until('the host', async () => (await api.getHost({ params: { ref: 'host-1' } })).status === 'connected');
    await done(api.refreshPrimaryStorage({ params: { ref: 'fast' } }, WAIT));
    const pid = await poolWorker();
    process.kill(pid, 'SIGSTOP');
    const { id } = await api.addToCache({ body: { image: 'base', primaryStorage: 'fast', host: 'host-1' } });
    await hasTask('cache.fill');
    process.kill(host.pid, 'SIGSTOP');
    process.kill(pid, 'SIGCONT');
    await until('the image in the cache', () => readdirSync(join(pool, 'cache')).length === 1);
    await host.kill();
    await api.cancelOperation({ params: { ref: id } });
    assert.equal((await house.ended(id)).state, 'cancelled');
    assert.deepEqual((await api.listCache()).items, []);
    await host.start();
    await until('the image in the books', async () => {
      await api.refreshPrimaryStorage({ params: { ref: 'fast' } }, WAIT).catch(() => undefined); // the host may not be back yet
      return (await api.listCache()).items.length === 1;
    });
    const [entry] = (await api.listCache()).items;
    assert.deepEqual([entry!.imageId, entry!.status], [readdirSync(join(pool, 'cache'))[0], 'ready']);
    await done(api.evictFromCache({ body: { image: 'base', primaryStorage: 'fast' } }, WAIT));
    assert.deepEqual(readdirSync(join(pool, 'cache')), []);
  });

  it('leaves no folder that was made for a pool, and leaves one that was there', async () => {
    const at = (path: string) => join(house.cistern.folder, 'host-1', path);
    mkdirSync(at('mine'));
    for (const path of ['made/for/it', 'mine']) {
      const config = { path: `/proc/self/cwd/${path}` };
      await done(api.addPrimaryStorage({ body: { name: 'short', type: 'local', config } }, WAIT));
      assert.ok(existsSync(at(`${path}/pool.json`)));
      await done(api.deletePrimaryStorage({ params: { ref: 'short' } }, WAIT));
    }
    assert.ok(!existsSync(at('made')));
    assert.deepEqual(readdirSync(at('mine')), []);
  });

  it('keeps every part of a primary storage that could not be deleted as a whole', async () => {
    const part = await house.addPool('tough');
    const foreign = [1, 2].map(n => join(part(n), 'volumes', newId()));
    // whichever host comes second refuses, when the first one has let go of its part
    const first = JSON.parse(readFileSync(join(part(1), 'pool.json'), 'utf8')) as { id: string };
    mkdirSync(foreign[0]!);
    const refused = await api.deletePrimaryStorage({ params: { ref: 'tough' } }, WAIT);
    assert.equal(refused.error?.code, 'IN_USE');
    for (const n of [1, 2]) assert.equal((JSON.parse(readFileSync(join(part(n), 'pool.json'), 'utf8')) as typeof first).id, first.id); // prettier-ignore
    const { state, hosts } = await api.getPrimaryStorage({ params: { ref: 'tough' } });
    assert.deepEqual([state, ...hosts.map(one => one.status)], ['enabled', 'connected', 'connected']);
    await done(api.createVolumes({ body: { name: 'fits', size: MiB, primaryStorage: 'tough', host: 'host-2' } }, WAIT));
    await done(api.deleteVolume({ params: { ref: 'fits' } }, WAIT));
    rmSync(foreign[0]!, { recursive: true });
    await done(api.deletePrimaryStorage({ params: { ref: 'tough' } }, WAIT));
  });

  it('stops reporting from a host that was removed, until it is added again', async () => {
    const second = house.cistern.agents[1]!;
    const file = join(house.cistern.folder, 'host-2/state/controller');
    await done(api.removeHost({ params: { ref: 'host-2' } }, WAIT));
    const agent = createClient(agentRoutes, { baseUrl: second.url, token: second.token });
    const store = { id: newId(), type: 'dir', config: { path: '/no/such/folder' } };
    await agent.createTask({ body: { id: newId(), command: { kind: 'store.connect', input: { store } } } });
    agent.close();
    await until('it gives up', () => !existsSync(file));
    await done(api.addHost({ body: { name: 'host-2', url: second.url, token: second.token } }, WAIT));
    assert.ok(existsSync(file));
  });
});
