/** The disk under a backup storage, an agent's state folder or the controller's database fails to write or to read. */
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Operation } from '../../shared/model.ts';
import { failsWith, filesBelow, type House, makeDisk, MiB, openHouse, sameContent } from '../e2e/house.ts';
import { type BadDisk, openBadDisk } from '../servers/bad-disk.ts';
import { done, WAIT } from '../servers/cistern.ts';

describe('I/O errors', () => {
  describe('under a backup storage', underStore);
  describe('under the state folder of an agent', underAgent);
  describe('under the controller', underController);
});

function failsAsDisk({ state, error }: Operation, code: string, path: string): void {
  assert.deepEqual([state, error?.code], ['failed', code], error?.detail);
  assert.match(error!.detail, /EIO|input\/output error/i);
  assert.ok(error!.detail.includes(path), error!.detail);
  assert.doesNotMatch(error!.detail, /\/proc\/self/);
  assert.match(error!.action, /disk/);
}

function underStore(): void {
  let house: House;
  let api: House['api'];
  let disk: BadDisk;
  let store: string;
  let depot: string;
  let source: string;
  before(async function () {
    this.timeout(60_000);
    house = await openHouse();
    api = house.api;
    disk = await openBadDisk(house.cistern.dir('disk'));
    store = join(disk.path, 'store');
    mkdirSync(store);
    await done(api.addBackupStorage({ body: { name: 'shelf', type: 'dir', config: { path: store } } }, WAIT));
    depot = await house.addStore('depot');
    await house.addPool('fast');
    source = await makeDisk(join(house.files, 'disk.raw'), 8 * MiB, 'bad-store');
  });
  after(() => end(house, disk));

  it('publish no image that could not be brought to the disk, on no storage', async () => {
    {
      using _bad = disk.breaks('write data');
      failsAsDisk(
        await house.importFile('disk.raw', { name: 'lost', backupStorages: ['depot', 'shelf'] }),
        'STORE_IO_ERROR',
        store,
      );
    }
    assert.deepEqual([...filesBelow(store), ...filesBelow(depot)], []);
    await done(house.importFile('disk.raw', { name: 'base', backupStorages: ['shelf', 'depot'] }));
  });

  it('lead to another replica, call none damaged, and are over once the disk is mended', async () => {
    const add = () => api.addToCache({ body: { image: 'base', primaryStorage: 'fast' } }, WAIT);
    const verify = () => api.verifyImage({ params: { ref: 'base' } }, WAIT);
    const damaged = async () => (await api.getImage({ params: { ref: 'base' } })).replicas.filter(one => one.status !== 'ready');
    await disk.forget();
    {
      using _bad = disk.breaks('read');
      failsAsDisk(await verify(), 'STORE_IO_ERROR', 'dir store');
      await done(add());
    }
    assert.deepEqual(await damaged(), []);
    await done(verify());
    const { id } = await api.getImage({ params: { ref: 'base' } });
    for (const folder of [store, depot])
      await sameContent({ path: join(folder, 'images', id, 'image.qcow2'), format: 'qcow2' }, { path: source, format: 'raw' });
    await done(api.deleteImage({ params: { ref: 'base' } }, WAIT));
    assert.deepEqual([...filesBelow(store), ...filesBelow(depot)], []);
  });
}

function underAgent(): void {
  let house: House;
  let disk: BadDisk;
  let depot: string;
  let source: string;
  before(async function () {
    this.timeout(60_000);
    house = await openHouse({ controller: { taskRetrySeconds: 3 } });
    depot = await house.addStore('depot');
    source = await makeDisk(join(house.files, 'disk.raw'), 8 * MiB, 'bad-agent');
    const [agent] = house.cistern.agents;
    await agent!.stop();
    disk = await openBadDisk(join(house.cistern.folder, 'host-1/state'));
    await agent!.start();
  });
  after(() => end(house, disk));

  it('publish no image of which a byte may have been lost on its way, and leave nothing', async () => {
    {
      using _bad = disk.breaks('write data');
      failsAsDisk(await house.importFile('disk.raw', { name: 'lost' }), 'IO_ERROR', disk.path);
    }
    assert.deepEqual(filesBelow(depot), []);
    assert.deepEqual(filesBelow(join(disk.path, 'spool')), []);
    await done(house.importFile('disk.raw', { name: 'base' }));
    const { id } = await house.api.getImage({ params: { ref: 'base' } });
    const stored = { path: join(depot, 'images', id, 'image.qcow2'), format: 'qcow2' };
    await sameContent(stored, { path: source, format: 'raw' });
  });
}

function underController(): void {
  let house: House;
  let disk: BadDisk;
  before(async function () {
    this.timeout(60_000);
    house = await openHouse();
    await house.cistern.controller.stop();
    disk = await openBadDisk(join(house.cistern.folder, 'controller/state'));
    await house.cistern.controller.start();
  });
  after(async () => {
    await house?.cistern.controller.stop();
    await end(house, disk);
  });

  it('refuse what is new, and forget nothing that was said to be done, also not at the next start', async function () {
    this.timeout(60_000);
    const { api, cistern } = house;
    const add = (name: string) => api.createCluster({ body: { name } });
    const kept = ['before'];
    await add('before');
    {
      using _bad = disk.breaks('write data');
      await assert.rejects(add('lost'), failsWith('DATABASE_UNAVAILABLE', /I\/O error/i));
      assert.ok((await api.listClusters()).items.some(one => one.name === 'before'));
    }
    for (let i = 0; i < 20; i++) {
      await add(`after-${i}`);
      kept.push(`after-${i}`);
    }
    await cistern.controller.kill();
    await disk.remountFresh(); // memory must not answer for the disk
    await cistern.controller.start();
    const names = (await api.listClusters()).items.map(one => one.name);
    assert.deepEqual(kept.filter(name => !names.includes(name)), []); // prettier-ignore
    await add('again');
  });
}

async function end(house: House | undefined, disk: BadDisk | undefined): Promise<void> {
  await house?.cistern.agents[0]!.stop();
  await disk?.[Symbol.asyncDispose]();
  await house?.[Symbol.asyncDispose]();
}
