import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Operation } from '../../shared/model.ts';
import { differences } from '../e2e/ledger.ts';
import { failsWith, filesBelow, type House, makeDisk, MiB, openHouse, sameContent, sha256, until } from '../e2e/house.ts';
import { done, type Service, WAIT } from '../servers/cistern.ts';
import { descendants } from '../servers/processes.ts';

const EVERY_SECOND = '* * * * * *';

describe('a controller whose database was put back to an old copy', () => {
  let house: House;
  let api: House['api'];
  let controller: Service;
  let agent: Service;
  let store: string;
  let pool: string;
  let disk: string;
  let state: string;
  let copy: string;
  let newer: string[];
  /** Everything on pool and store, with digests. */
  let truth: Record<string, string>;

  before(async function () {
    this.timeout(60_000);
    const schedules = {
      capacity: EVERY_SECOND,
      reconnect: EVERY_SECOND,
      trash: EVERY_SECOND,
      cache: EVERY_SECOND,
      prune: EVERY_SECOND,
    };
    house = await openHouse({ hosts: ['host-1'], controller: { schedules, taskRetrySeconds: 60 } });
    api = house.api;
    controller = house.cistern.controller;
    agent = house.cistern.agents[0]!;
    state = join(house.cistern.folder, 'controller/state');
    copy = house.cistern.dir('copy');
    store = await house.addStore('depot');
    pool = (await house.addPool('fast'))(1);
    disk = await makeDisk(join(house.files, 'disk.raw'), 16 * MiB, 'restored');
    for (const name of ['base', 'old']) await done(house.importFile('disk.raw', { name }));
    await create('kept');
    await create('trashed');
    await create('purged');
    await create('dying');
  });
  after(() => house?.[Symbol.asyncDispose]());

  const create = (name: string, count = 1): Promise<Operation> =>
    done(api.createVolumes({ body: { name, count, image: 'base', primaryStorage: 'fast' } }, WAIT));
  const remove = (ref: string): Promise<Operation> => done(api.deleteVolume({ params: { ref } }, WAIT));
  const volume = (ref: string) => api.getVolume({ params: { ref } });
  const recovery = async () => (await api.getController()).recovery;
  const lie = (): Record<string, string> =>
    Object.fromEntries([pool, store].flatMap(root => filesBelow(root).map(file => [join(root, file), sha256(join(root, file))])));
  const database = (folder: string) => readdirSync(folder).filter(name => name.startsWith('cistern.db'));
  const unfinished = async () =>
    (await api.listOperations({ query: { limit: 1000 } })).items
      .filter(operation => operation.finishedAt === null)
      .map(operation => operation.kind);

  it('is copied while operations are under way, and much happens after that', async function () {
    this.timeout(120_000);
    const workers = await descendants(agent.pid);
    for (const pid of workers) process.kill(pid, 'SIGSTOP');
    const importing = await api.importImage({
      body: { name: 'late', source: { type: 'url', url: `${house.web.url}/disk.raw` } },
    });
    const creating = await api.createVolumes({ body: { name: 'inflight', image: 'base', primaryStorage: 'fast' } });
    const deleting = await api.deleteVolume({ params: { ref: 'dying' } });
    await controller.stop();
    for (const name of database(state)) cpSync(join(state, name), join(copy, name));
    for (const pid of workers) process.kill(pid, 'SIGCONT');
    await controller.start();
    for (const { id } of [importing, creating, deleting]) assert.equal((await house.ended(id)).state, 'succeeded');

    await create('newer', 3);
    newer = (await api.listVolumes()).items.filter(one => one.name.startsWith('newer')).map(one => one.id);
    await done(api.resizeVolume({ params: { ref: 'kept' }, body: { size: 64 * MiB } }, WAIT));
    await remove('purged');
    await done(api.emptyTrash({ body: {} }, WAIT));
    await remove('trashed');
    await done(house.importFile('disk.raw', { name: 'new' }));
    await done(api.deleteImage({ params: { ref: 'old' } }, WAIT));
    await until('all is quiet', async () => (await unfinished()).length === 0);
    await controller.kill();
    await agent.stop();
    for (const name of database(state)) rmSync(join(state, name));
    for (const name of database(copy)) cpSync(join(copy, name), join(state, name));
    truth = lie();
  });

  it('takes up what it finds under way, and stops all work when the first host is back', async () => {
    await controller.start();
    assert.equal(await recovery(), null, 'no host could tell');
    await agent.start();
    const { reason } = await until('it must be recovered', async () => (await recovery()) ?? false);
    assert.match(reason, /host-1 has seen commit \d+/);
    assert.deepEqual((await unfinished()).toSorted(), ['image.import', 'volume.create', 'volume.delete']);
    assert.deepEqual(lie(), truth);
  });

  it('finds out by itself at the next start, does nothing, and refuses all work with what to do', async () => {
    await controller.kill();
    await controller.start();
    assert.ok(await recovery());
    const seen = (await api.getHost({ params: { ref: 'host-1' } })).lastSeenAt;
    await until('some seconds have gone', async () => {
      const now = (await api.getHost({ params: { ref: 'host-1' } })).lastSeenAt;
      return Date.parse(now!) > Date.parse(seen!) + 3000;
    });
    const refused = failsWith('CONTROLLER_OUTDATED', /put back to an old copy/);
    await assert.rejects(remove('kept'), refused);
    await assert.rejects(create('more'), refused);
    await assert.rejects(api.emptyTrash({ body: {} }), refused);
    await assert.rejects(api.deleteImage({ params: { ref: 'base' } }), refused);
    await assert.rejects(api.evictFromCache({ body: { image: 'base', primaryStorage: 'fast' } }), refused);
    await assert.rejects(api.removeHost({ params: { ref: 'host-1' } }), refused);
    await assert.rejects(api.updateVolume({ params: { ref: 'kept' }, body: { name: 'other' } }), refused);
    for (const { id } of (await api.listOperations()).items.filter(one => one.finishedAt === null))
      await assert.rejects(api.cancelOperation({ params: { ref: id } }), refused);
    assert.equal((await volume('kept')).status, 'ready');
    assert.deepEqual(lie(), truth);
  });

  it('shows what lies there without rows, and what rows have that lies there no more', async () => {
    const scan = async (starting: Promise<Operation>) => {
      const { output } = await done(starting);
      const found = output!.differences as { what: string; kind: string; name?: string }[];
      return found.map(({ what, kind, name }) => `${what} ${kind} ${name}`);
    };
    assert.deepEqual(await scan(api.scanPrimaryStorage({ params: { ref: 'fast' }, body: {} }, WAIT)), [
      'different volume kept',
      'orphan volume newer-1',
      'orphan volume newer-2',
      'orphan volume newer-3',
      'different volume trashed',
      'missing volume purged',
    ]);
    assert.deepEqual(await scan(api.scanBackupStorage({ params: { ref: 'depot' } }, WAIT)), [
      'orphan image new',
      'missing image old',
    ]);
  });

  it('works again once it is resumed: rows follow what lies there, and nothing there was touched', async () => {
    const { output } = await done(api.resumeController({}, WAIT));
    assert.equal(await recovery(), null);
    assert.equal(output!.operations, 3);
    assert.deepEqual(output!.unseen, []);
    assert.deepEqual(await unfinished(), []);
    assert.equal((await volume('inflight')).status, 'ready', 'it had been made');
    assert.equal((await volume('kept')).size, 64 * MiB, 'it had grown');
    assert.equal((await volume('purged')).status, 'missing');
    assert.deepEqual((await api.listTrash()).items.map(entry => entry.name).toSorted(), ['trashed']);
    await assert.rejects(volume('dying'), failsWith('NOT_FOUND'));
    const images = (await api.listImages()).items.map(image => `${image.name} ${image.status}`);
    assert.deepEqual(images.toSorted(), ['base ready', 'late ready', 'old missing']);
    assert.deepEqual(lie(), truth);
  });

  it('leaves as missing what cannot be deleted now', async () => {
    const { path, format } = house.volumeFile(pool, await volume('kept'));
    const vm = spawn('qemu-io', ['-f', format, '--', path], { stdio: ['pipe', 'pipe', 'inherit'] });
    await once(vm.stdout, 'data'); // its prompt: the disk is open
    try {
      await assert.rejects(done(api.deleteVolumes({ body: { volumes: ['purged', 'kept'] } }, WAIT)), /VOLUME_IN_USE/);
    } finally {
      vm.stdin.end('quit\n');
      await once(vm, 'exit');
    }
    assert.equal((await volume('purged')).status, 'missing');
    assert.equal((await volume('kept')).status, 'ready');
  });

  it('then makes and deletes as ever; what lies there without rows stays, and shows its bytes', async () => {
    await create('after', 2);
    await remove('purged');
    await remove('after-1');
    await done(api.deleteImage({ params: { ref: 'old' } }, WAIT));
    await done(api.emptyTrash({ body: {} }, WAIT));
    await sameContent(house.volumeFile(pool, await volume('after-2')), { path: disk, format: 'raw' });
    for (const id of newer) {
      const path = Object.keys(truth).find(file => file.includes(id) && file.endsWith('.qcow2'))!;
      await sameContent({ path, format: 'qcow2' }, { path: disk, format: 'raw' });
    }
    const storage = (await api.listPrimaryStorages()).items[0]!.id;
    const host = (await api.listHosts()).items[0]!.id;
    const depot = (await api.listBackupStorages()).items[0]!.id;
    await controller.stop();
    const left = differences({
      controller: state,
      agents: [join(house.cistern.folder, 'host-1/state')],
      pools: { [`${storage}/${host}`]: pool },
      stores: { [depot]: store },
    });
    assert.equal(left.length, newer.length + 1, left.join('\n'));
    for (const line of left) assert.match(line, /is there without a row$/);
  });
});
