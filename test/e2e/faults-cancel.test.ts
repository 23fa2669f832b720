import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync, renameSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { agentRoutes } from '../../shared/contract/agent.ts';
import { type Client, createClient } from '../../shared/http/client.ts';
import { newId } from '../../shared/id.ts';
import { done, WAIT } from '../servers/cistern.ts';
import { descendants } from '../servers/processes.ts';
import { failsWith, type House, makeDisk, MiB, NO_SCHEDULES, openHouse, until } from './house.ts';
import { differences } from './ledger.ts';

describe('a cancel that comes too late, or cannot be said', () => {
  let house: House;
  let api: House['api'];
  let pool: string;
  let agent: Client<typeof agentRoutes>;
  let poolId: string;

  before(async function () {
    this.timeout(60_000);
    house = await openHouse({ hosts: ['host-1'], controller: { taskRetrySeconds: 5, schedules: NO_SCHEDULES } });
    api = house.api;
    await house.addStore('depot');
    pool = (await house.addPool('fast'))(1);
    poolId = (await api.getPrimaryStorage({ params: { ref: 'fast' } })).id;
    const { url, token } = house.cistern.agents[0]!;
    agent = createClient(agentRoutes, { baseUrl: url, token });
    await makeDisk(join(house.files, 'disk.raw'), 16 * MiB, 'faults');
    await done(house.importFile('disk.raw', { name: 'base' }));
  });
  after(async () => {
    agent?.close();
    await house?.[Symbol.asyncDispose]();
  });

  /** The process that works on the pool. */
  const findWorker = async () => {
    const all = await descendants(house.cistern.agents[0]!.pid);
    return all.find(pid => existsSync(`/proc/${pid}`) && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(poolId));
  };
  const worker = () => until('the worker of the pool', findWorker);
  /** Until the agent has handed such a task to its worker, be that one stopped or not. */
  const waiting = async (kind: string) => {
    await until(`a ${kind} at the agent`, async () =>
      (await agent.listTasks()).items.some(task => task.kind === kind && (task.state === 'queued' || task.state === 'running')),
    );
    // tasks are journalled and handed on in their order: once a later one is accepted, this one has gone
    const store = { id: newId(), type: 'dir', config: { path: '/no/such/folder' } };
    await agent.createTask({ body: { id: newId(), command: { kind: 'store.connect', input: { store } } } });
  };
  const volumes = async () => (await api.listVolumes()).items.map(volume => [volume.id, volume.status]);
  const areas = () => ['volumes', 'trash', 'cache', 'tmp'].map(area => readdirSync(join(pool, area)));

  it('leaves each volume of a cancelled delete where its row says it is', async () => {
    await done(api.createVolumes({ body: { name: 'late', count: 20, size: MiB }, }, WAIT)); // prettier-ignore
    const pid = await worker();
    process.kill(pid, 'SIGSTOP');
    const ids = (await api.listVolumes()).items.map(volume => volume.id);
    const { id } = await api.deleteVolumes({ body: { volumes: ids } });
    await waiting('volume.delete');
    await api.cancelOperation({ params: { ref: id } });
    await delay(300); // for the cancel to reach the agent; sooner or later, the outcome must fit
    process.kill(pid, 'SIGCONT');
    await house.ended(id);
    const [inPlace, inTrash] = areas();
    const rows = await volumes();
    assert.deepEqual(rows.filter(([, status]) => status === 'ready').map(([volume]) => volume).sort(), inPlace); // prettier-ignore
    assert.equal(rows.length + inTrash!.length, 20);
    assert.ok(rows.every(([, status]) => status === 'ready'));
  });

  it('brings back what a delete had moved when its worker died again and again', async () => {
    await done(api.createVolumes({ body: { name: 'torn', size: MiB } }, WAIT));
    const volume = await api.getVolume({ params: { ref: 'torn' } });
    const { id } = await api.deleteVolume({ params: { ref: 'torn' } });
    // each worker that takes it up dies, before the move or after
    const ended = await until('the end of the delete', async () => {
      const operation = await api.getOperation({ params: { ref: id } });
      const pid = operation.state === 'running' ? await findWorker() : undefined;
      if (pid !== undefined) process.kill(pid, 'SIGKILL');
      return operation.finishedAt !== null && operation;
    });
    const after = await api.getVolume({ params: { ref: volume.id } });
    const [inPlace, inTrash] = areas();
    assert.equal(after.status, ended.state === 'succeeded' ? 'deleted' : 'ready');
    assert.equal(inPlace!.includes(volume.id), after.status === 'ready');
    assert.equal(inTrash!.includes(volume.id), after.status === 'deleted');
  });

  it('leaves a volume as it was that a damaged pool lets neither go nor come back, once the pool is mended', async () => {
    await done(api.createVolumes({ body: { name: 'stays', size: MiB } }, WAIT));
    const volume = await api.getVolume({ params: { ref: 'stays' } });
    const [trash, aside] = [join(pool, 'trash'), join(house.cistern.folder, 'aside')];
    renameSync(trash, aside);
    symlinkSync(house.cistern.dir('elsewhere'), trash);
    const grown = await api.resizeVolume({ params: { ref: 'stays' }, body: { size: 2 * MiB } }, WAIT);
    const refused = await api.deleteVolume({ params: { ref: 'stays' } }, WAIT);
    const meanwhile = await api.getVolume({ params: { ref: 'stays' } });
    rmSync(trash);
    renameSync(aside, trash);
    assert.deepEqual([refused.error?.code, grown.error?.code, meanwhile.status], ['IO_ERROR', 'IO_ERROR', 'deleting']);
    // a host that is back is asked for what could not be told before
    await house.cistern.agents[0]!.kill();
    await house.cistern.agents[0]!.start();
    await until('the volume is settled', async () => (await api.getVolume({ params: { ref: 'stays' } })).status === 'ready');
    assert.deepEqual(await api.getVolume({ params: { ref: 'stays' } }), volume);
  });

  it('lists of the trash what is left in it when emptying it was cut short', async () => {
    await done(api.emptyTrash({ body: {} }, WAIT));
    await done(api.createVolumes({ body: { name: 'waste', count: 6, size: MiB } }, WAIT));
    const ids = (await api.listVolumes()).items.filter(volume => volume.name.startsWith('waste')).map(volume => volume.id);
    await done(api.deleteVolumes({ body: { volumes: ids } }, WAIT));
    const pid = await worker();
    process.kill(pid, 'SIGSTOP');
    const { id } = await api.emptyTrash({ body: {} });
    await waiting('pool.purge');
    for (const gone of ids.slice(0, 3)) rmSync(join(pool, 'trash', gone), { recursive: true }); // so far it came
    await api.cancelOperation({ params: { ref: id } });
    process.kill(pid, 'SIGKILL');
    assert.equal((await house.ended(id)).state, 'cancelled');
    const listed = (await api.listTrash()).items.map(entry => entry.volumeId);
    assert.deepEqual([listed.toSorted(), areas()[1]], [ids.slice(3).toSorted(), ids.slice(3).toSorted()]);
    await done(api.emptyTrash({ body: {} }, WAIT));
  });

  it('says nothing of a backup storage whose check was cancelled, and the reason where it failed', async () => {
    const depot = () => api.getBackupStorage({ params: { ref: 'depot' } });
    await done(api.refreshBackupStorage({ params: { ref: 'depot' } }, WAIT));
    const agentPid = house.cistern.agents[0]!.pid;
    const pids = await descendants(agentPid);
    for (const pid of pids) process.kill(pid, 'SIGSTOP');
    const { id } = await api.refreshBackupStorage({ params: { ref: 'depot' } });
    await waiting('store.connect');
    await api.cancelOperation({ params: { ref: id } });
    for (const pid of pids) process.kill(pid, 'SIGCONT');
    assert.ok(['cancelled', 'succeeded'].includes((await house.ended(id)).state));
    assert.deepEqual([(await depot()).status, (await depot()).reason], ['connected', null]);
    const path = join(house.cistern.folder, 'store-depot');
    renameSync(path, `${path}.away`);
    const failed = await api.refreshBackupStorage({ params: { ref: 'depot' } }, WAIT);
    assert.deepEqual([failed.state, (await depot()).status], ['failed', 'disconnected']);
    assert.match((await depot()).reason!, /store-depot/);
    renameSync(`${path}.away`, path);
    await done(api.refreshBackupStorage({ params: { ref: 'depot' } }, WAIT));
    assert.equal((await depot()).status, 'connected');
  });

  it('keeps a cached image in its books that was there when the cancel came', async () => {
    await done(api.createVolumes({ body: { name: 'wakes-the-worker', size: MiB } }, WAIT));
    const pid = await worker();
    const { pid: agentPid } = house.cistern.agents[0]!;
    process.kill(pid, 'SIGSTOP');
    const { id } = await api.addToCache({ body: { image: 'base', primaryStorage: 'fast' } });
    await waiting('cache.fill');
    process.kill(agentPid, 'SIGSTOP');
    process.kill(pid, 'SIGCONT');
    await until('the image in the cache', () => areas()[2]!.length === 1);
    await api.cancelOperation({ params: { ref: id } });
    process.kill(agentPid, 'SIGCONT');
    await house.ended(id);
    assert.deepEqual((await api.listCache()).items.map(entry => [entry.imageId, entry.status]), [[areas()[2]![0], 'ready']]); // prettier-ignore
  });

  it('removes clones that a host finished while nobody could tell it to stop, and lets go of their image', async () => {
    const pid = await worker();
    const host = house.cistern.agents[0]!;
    const before = areas();
    process.kill(pid, 'SIGSTOP');
    const { id } = await api.createVolumes({ body: { name: 'ghost', image: 'base', count: 30 } });
    await waiting('volume.create');
    process.kill(host.pid, 'SIGSTOP');
    process.kill(pid, 'SIGCONT');
    await until('the clones', () => areas()[0]!.length === before[0]!.length + 30);
    await host.kill();
    await api.cancelOperation({ params: { ref: id } });
    assert.equal((await house.ended(id)).state, 'cancelled');
    assert.deepEqual((await api.listVolumes({ query: { image: 'base' } })).items, []);
    await host.start();
    await until('the removal of the clones', () => isDeepStrictEqual(areas(), before));
    await until('the host', async () => (await api.getHost({ params: { ref: 'host-1' } })).status === 'connected');
    await done(api.evictFromCache({ body: { image: 'base', primaryStorage: 'fast' } }, WAIT));
    assert.deepEqual(areas()[2], []);
  });

  it('finds a host at work, which is not removed under it', async () => {
    house.web.behave('/disk.raw', { stallAfter: 2 * MiB, times: 1 });
    const source = { type: 'url' as const, url: `${house.web.url}/disk.raw` };
    const { id } = await api.importImage({ body: { name: 'slow', source } });
    await waiting('image.import');
    await assert.rejects(api.removeHost({ params: { ref: 'host-1' } }), failsWith('IN_USE', /works for operations/));
    await api.cancelOperation({ params: { ref: id } });
    assert.equal((await house.ended(id)).state, 'cancelled');
  });

  it('leaves database, pool, store and hosts agreeing', async () => {
    const { folder, controller } = house.cistern;
    const hostId = (await api.getHost({ params: { ref: 'host-1' } })).id;
    const storeId = (await api.getBackupStorage({ params: { ref: 'depot' } })).id;
    await controller.stop();
    assert.deepEqual(
      differences({
        controller: join(folder, 'controller/state'),
        agents: [join(folder, 'host-1/state')],
        pools: { [`${poolId}/${hostId}`]: pool },
        stores: { [storeId]: join(folder, 'store-depot') },
      }),
      [],
    );
  });
});
