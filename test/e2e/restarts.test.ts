import assert from 'node:assert/strict';
import { readdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { agentRoutes } from '../../shared/contract/agent.ts';
import { createClient } from '../../shared/http/client.ts';
import type { Operation } from '../../shared/model.ts';
import { isFinal } from '../../shared/task.ts';
import { done, type Service, WAIT } from '../servers/cistern.ts';
import { descendants } from '../servers/processes.ts';
import { dump, failsWith, filesBelow, type House, makeDisk, MiB, NO_SCHEDULES, openHouse, sameContent, until } from './house.ts';

const SIZE = 16 * MiB;

describe('crashes, restarts and what is away', () => {
  let house: House;
  let api: House['api'];
  let store: string;
  let pool: string;
  let disk: string;
  let controller: Service;
  let agent: Service;

  before(async function () {
    this.timeout(60_000);
    const schedules = { ...NO_SCHEDULES, trash: '* * * * * *' };
    house = await openHouse({ hosts: ['host-1'], sshd: true, controller: { schedules, taskRetrySeconds: 60 } });
    api = house.api;
    controller = house.cistern.controller;
    agent = house.cistern.agents[0]!;
    store = await house.addStore('depot');
    await house.addSftp('vault');
    pool = (await house.addPool('fast'))(1);
    disk = await makeDisk(join(house.files, 'disk.raw'), SIZE, 'restarts');
    await done(house.importFile('disk.raw', { name: 'base', backupStorages: ['depot'] }));
  });
  after(async () => {
    await house?.sshd.freeze(false).catch(() => undefined); // it may be dead
    await house?.[Symbol.asyncDispose]();
  });

  const spool = () => filesBelow(join(house.cistern.folder, 'host-1/state/spool'));
  const objects = () => readdirSync(join(store, 'images'));
  const startImport = (name: string, backupStorages = ['depot']) =>
    api.importImage({ body: { name, source: { type: 'url', url: `${house.web.url}/disk.raw` }, backupStorages } });
  const show = (id: string) => api.getOperation({ params: { ref: id } });
  const host = () => api.getHost({ params: { ref: 'host-1' } });
  const connected = () => until('the host is connected', async () => (await host()).status === 'connected');
  const types = async (after: number) => (await api.listEvents({ query: { after, limit: 1000 } })).items.map(event => event.type);
  const lastEvent = async () => (await api.listEvents({ query: { limit: 1000 } })).items.at(-1)!.seq;

  /** Waits until the download of an import has begun. */
  const downloading = (id: string): Promise<Operation> =>
    until('the download has begun', async () => {
      const operation = await show(id);
      return operation.progress?.stage === 'download' && operation.progress.done > 0 && operation;
    });

  async function restart(service: Service, how: 'kill' | 'stop'): Promise<void> {
    await service[how]();
    await service.start();
  }

  /** Lists without operations and without what only the clock changes. */
  const lists = async () => ((await dump(api)) as unknown[]).slice(0, -1);

  /** Lists are as they were, once the host is connected with all its pools. */
  const becomes = async (before: unknown[]): Promise<void> => {
    await until('the lists are as before', async () => isDeepStrictEqual(await lists(), before)).catch(() => {}); // shown below
    assert.deepEqual(await lists(), before);
  };

  /** Stops what works for the agent, not the agent: tasks are taken and do not move on. Returns how to let them go on. */
  async function holdWorkers(): Promise<() => void> {
    const pids = await descendants(agent.pid);
    const all = (signal: NodeJS.Signals) => pids.forEach(pid => process.kill(pid, signal));
    all('SIGSTOP');
    return () => all('SIGCONT');
  }

  it('an import and many clones go on after the controller was killed, each done once', async () => {
    const before = objects().length;
    const fetched = house.web.requests.length;
    house.web.behave('/disk.raw', { bytesPerSecond: 4 * MiB, times: 1 });
    const importing = await startImport('survivor');
    await downloading(importing.id);
    const cloning = await api.createVolumes({ body: { name: 'clone', image: 'base', count: 100, primaryStorage: 'fast' } });
    await restart(controller, 'kill');
    const [image, clones] = await Promise.all([house.ended(importing.id), house.ended(cloning.id)]);
    assert.equal(image.state, 'succeeded', image.error?.detail);
    assert.equal(clones.state, 'succeeded', clones.error?.detail);
    assert.equal(objects().length, before + 1);
    assert.equal(house.web.requests.length, fetched + 1, 'the image was fetched twice');
    assert.equal((await api.listImages()).items.filter(one => one.name === 'survivor').length, 1);
    const volumes = (await api.listVolumes({ query: { limit: 1000 } })).items;
    assert.equal(volumes.length, 100);
    assert.ok(volumes.every(volume => volume.status === 'ready'));
    assert.equal(readdirSync(join(pool, 'volumes')).length, 100);
    await sameContent(house.volumeFile(pool, volumes[99]!), { path: disk, format: 'raw' });
    await done(api.deleteVolumes({ body: { volumes: volumes.map(volume => volume.id) } }, WAIT));
    await done(api.emptyTrash({ body: {} }, WAIT));
  });

  it('what an agent reports while the controller is away arrives when it is back', async () => {
    house.web.behave('/disk.raw', { bytesPerSecond: 8 * MiB, times: 1 });
    const { id } = await startImport('reported');
    await downloading(id);
    await controller.stop();
    const there = createClient(agentRoutes, { baseUrl: agent.url, token: agent.token });
    try {
      await until('the task has ended', async () => (await there.listTasks()).items.every(task => isFinal(task.state)));
      await controller.start();
      const ended = await house.ended(id);
      assert.equal(ended.state, 'succeeded', ended.error?.detail);
      await until('nothing is left to report', async () =>
        /^cistern_agent_reports_pending 0$/m.test((await there.metrics()) as unknown as string),
      );
    } finally {
      there.close();
    }
  });

  it('a step is followed although a time in it has changed since it was sent', async () => {
    const other = (await house.addPool('other'))(1);
    const letGo = await holdWorkers();
    let id: string;
    try {
      ({ id } = await api.deletePrimaryStorage({ params: { ref: 'other' } }));
      await until('the host has the task', async () => (await show(id)).steps.some(step => step.name.includes('trash')));
      await agentHas('pool.purge');
      await restart(controller, 'kill');
    } finally {
      letGo();
    }
    const ended = await house.ended(id);
    assert.equal(ended.state, 'succeeded', ended.error?.detail);
    assert.deepEqual(filesBelow(other), []);
  });

  it('an import goes on after its agent was killed; the host goes and comes back with events', async () => {
    const since = await lastEvent();
    house.web.behave('/disk.raw', { bytesPerSecond: 4 * MiB, times: 1 });
    const { id } = await startImport('revived');
    await downloading(id);
    await agent.kill();
    await until('the host is disconnected', async () => (await host()).status === 'disconnected');
    assert.match((await host()).reason!, /ECONNREFUSED|connect/);
    assert.equal((await api.getPrimaryStorage({ params: { ref: 'fast' } })).status, 'disconnected');
    await assert.rejects(startImport('nobody'), failsWith('NO_HOST'));
    await agent.start();
    const ended = await house.ended(id);
    assert.equal(ended.state, 'succeeded', ended.error?.detail);
    await connected();
    assert.deepEqual((await types(since)).filter(type => type.startsWith('host.')), ['host.disconnected', 'host.connected']); // prettier-ignore
    await until(
      'the pool is connected',
      async () => (await api.getPrimaryStorage({ params: { ref: 'fast' } })).status === 'connected',
    );
    const { id: imageId } = await api.getImage({ params: { ref: 'revived' } });
    await sameContent({ path: join(store, 'images', imageId, 'image.qcow2'), format: 'qcow2' }, { path: disk, format: 'raw' });
    assert.deepEqual(spool(), []);
  });

  it('an upload whose agent was killed fails and leaves nothing: its bytes come only once', async () => {
    const before = await lists();
    const started = await api.importImage({
      body: { name: 'cut', source: { type: 'upload', size: SIZE }, backupStorages: ['depot'] },
    });
    await agentHas('image.import');
    await restart(agent, 'kill');
    const ended = await house.ended(started.id);
    assert.equal(ended.state, 'failed');
    assert.equal(ended.error!.code, 'TASK_INTERRUPTED');
    await connected();
    await becomes(before);
    assert.deepEqual(spool(), []);
  });

  it('a cancelled import whose controller is killed while it is undone ends cancelled, with nothing left', async () => {
    const before = await lists();
    house.web.behave('/disk.raw', { stallAfter: 2 * MiB, times: 1 });
    const { id } = await startImport('undone', ['depot', 'vault']);
    await downloading(id);
    await house.sshd.freeze();
    await api.cancelOperation({ params: { ref: id } });
    await until('it is being undone', async () => (await show(id)).state === 'undoing');
    await controller.kill();
    await house.sshd.freeze(false);
    await controller.start();
    const ended = await house.ended(id);
    assert.equal(ended.state, 'cancelled', ended.error?.detail);
    await becomes(before);
    assert.deepEqual(spool(), []);
    assert.deepEqual(filesBelow(house.sshd.path), []);
  });

  it('hosts that are down or refuse are not added', async () => {
    const before = await lists();
    const add = (url: string, token = 'x'.repeat(43)) =>
      api.addHost({ body: { name: 'host-9', url, token, cluster: 'new' } }, WAIT);
    assert.equal((await add('http://127.0.0.1:1')).error?.code, 'HOST_UNREACHABLE');
    assert.equal((await add(agent.url.replace('127.0.0.1', 'localhost'))).error?.code, 'HOST_REFUSED');
    assert.notEqual((await add(house.web.url)).state, 'succeeded');
    assert.deepEqual(await lists(), before);
  });

  it('storages that are not there or refuse are not added', async () => {
    const before = await lists();
    const { host: address, port, user, hostKey, path, privateKey } = house.sshd;
    const sftp = { host: address, port, user, hostKey, path, privateKey };
    const otherKey = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH';
    const backup = async (type: string, config: Record<string, unknown>) =>
      (await api.addBackupStorage({ body: { name: 'bad', type, config } }, WAIT)).error;
    assert.equal((await backup('dir', { path: '/no/such/folder' }))?.code, 'STORE_CONFIG');
    assert.equal((await backup('sftp', { ...sftp, port: 1 }))?.code, 'STORE_UNREACHABLE');
    assert.equal((await backup('sftp', { ...sftp, hostKey: otherKey }))?.code, 'STORE_HOST_KEY');
    assert.equal((await backup('sftp', { ...sftp, path: '/no/such/folder' }))?.code, 'STORE_CONFIG');
    const full = house.cistern.dir('host-1/full');
    writeFileSync(join(full, 'letters'), 'mine');
    const primary = async (config: Record<string, unknown>) =>
      (await api.addPrimaryStorage({ body: { name: 'bad', type: 'local', config } }, WAIT)).error;
    assert.equal((await primary({ path: full }))?.code, 'POOL_IDENTITY');
    assert.equal((await primary({ path: 'relative' }))?.code, 'POOL_CONFIG');
    assert.equal((await primary({ path: pool }))?.code, 'POOL_IDENTITY', 'the folder of another pool');
    assert.deepEqual(filesBelow(full), ['letters']);
    assert.deepEqual(await lists(), before);
    await done(api.createVolumes({ body: { name: 'still', size: MiB, primaryStorage: 'fast' } }, WAIT));
  });

  it('a host that did not let itself be removed stays as it was; one that is gone can be removed', async () => {
    const second = await house.cistern.addAgent('host-2');
    await second.kill();
    const removing = await api.removeHost({ params: { ref: 'host-2' } });
    await api.cancelOperation({ params: { ref: removing.id } });
    assert.equal((await house.ended(removing.id)).state, 'cancelled');
    const left = await api.getHost({ params: { ref: 'host-2' } });
    assert.equal(left.state, 'enabled');
    await until('it is disconnected', async () => (await api.getHost({ params: { ref: 'host-2' } })).status === 'disconnected');
    await done(api.removeHost({ params: { ref: 'host-2' } }, WAIT));
    await assert.rejects(api.getHost({ params: { ref: 'host-2' } }), failsWith('NOT_FOUND'));
  });

  it('what lies on a store that went away during an undo is removed when it is back', async () => {
    const before = filesBelow(store);
    const images = (await api.listImages()).items.length;
    await house.sshd.freeze();
    const { id } = await startImport('orphan', ['depot', 'vault']);
    await until('it is on the first store', () => filesBelow(store).length > before.length && filesBelow(store).filter(name => name.endsWith('manifest.json')).length > images); // prettier-ignore
    renameSync(store, `${store}-away`);
    await house.sshd.kill();
    const ended = await house.ended(id);
    assert.equal(ended.state, 'failed');
    assert.equal((await api.listImages()).items.length, images);
    assert.ok(filesBelow(`${store}-away`).length > before.length);
    renameSync(`${store}-away`, store);
    await until('it is swept up', () => filesBelow(store).length === before.length);
    assert.deepEqual(filesBelow(store), before);
  });

  it('an image is deleted from a store that is away once that is back', async () => {
    const imported = await startImport('gone', ['depot']);
    await house.ended(imported.id);
    const there = filesBelow(store);
    renameSync(store, `${store}-away`);
    await done(api.deleteImage({ params: { ref: 'gone' } }, WAIT));
    await assert.rejects(api.getImage({ params: { ref: 'gone' } }), failsWith('NOT_FOUND'));
    assert.deepEqual(filesBelow(`${store}-away`), there);
    renameSync(`${store}-away`, store);
    await until('its files are gone', () => filesBelow(store).length === there.length - 2);
  });

  async function agentHas(kind: string): Promise<void> {
    const there = createClient(agentRoutes, { baseUrl: agent.url, token: agent.token });
    try {
      await until(`the host has a task ${kind}`, async () =>
        (await there.listTasks()).items.some(task => task.kind === kind && !isFinal(task.state)),
      );
    } finally {
      there.close();
    }
  }
});
