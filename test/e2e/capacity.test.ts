import assert from 'node:assert/strict';
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import type { PoolCapacity } from '../../shared/model.ts';
import { done, WAIT } from '../servers/cistern.ts';
import { failsWith, type House, MiB, noise, openHouse, until } from './house.ts';

const GiB = 1024 * MiB;
const IMAGE = 24 * MiB;
/** Room for one image of that size, not for two. */
const SMALL = 48 * MiB;

describe('capacity and placement', () => {
  let house: House;
  let api: House['api'];
  let store: string;
  let mount: string;

  before(async function () {
    this.timeout(60_000);
    house = await openHouse({ hosts: ['host-1'] });
    api = house.api;
    mount = join(house.cistern.folder, 'host-1/pool-small');
    mkdirSync(mount);
    await execa('mount', ['-t', 'tmpfs', '-o', `size=${SMALL}`, 'cistern-test', mount]);
    store = await house.addStore('depot');
    await house.addPool('small', { overcommit: 4 });
    await house.addPool('large', { overcommit: 0.1 });
    // dense, so that the stored image is as large as the disk
    for (const name of ['one', 'two']) {
      writeFileSync(join(house.files, `${name}.raw`), noise(name, IMAGE));
      await done(house.importFile(`${name}.raw`, { sourceFormat: 'raw' }));
    }
  });
  after(async () => {
    await house?.cistern.agents[0]?.stop();
    if (existsSync(mount)) await execa('umount', ['--', mount], { reject: false });
    await house?.[Symbol.asyncDispose]();
  });

  const capacity = async (ref: string): Promise<PoolCapacity> => (await api.getPrimaryStorage({ params: { ref } })).capacity!;
  const create = (body: Parameters<House['api']['createVolumes']>[0]['body']) => api.createVolumes({ body }, WAIT);
  const where = async (name: string): Promise<string> => {
    const { primaryStorageId } = await api.getVolume({ params: { ref: name } });
    return (await api.getPrimaryStorage({ params: { ref: primaryStorageId } })).name;
  };
  const update = (ref: string, state: 'enabled' | 'disabled') => api.updatePrimaryStorage({ params: { ref }, body: { state } });

  /** Holds the host still while `work` looks at what has been promised. */
  async function whileHeld<T>(work: () => Promise<T>): Promise<T> {
    const { pid } = house.cistern.agents[0]!;
    process.kill(pid, 'SIGSTOP');
    try {
      return await work();
    } finally {
      process.kill(pid, 'SIGCONT');
    }
  }

  it('chooses the least used pool for what needs no image', async () => {
    await done(create({ name: 'anywhere', size: MiB }));
    assert.equal(await where('anywhere'), 'small');
  });

  it('prefers the pool that has the image in its cache', async () => {
    await done(api.addToCache({ body: { image: 'one', primaryStorage: 'large' } }, WAIT));
    await done(create({ name: 'near-its-image', image: 'one' }));
    assert.equal(await where('near-its-image'), 'large');
    await done(create({ name: 'far-from-it', image: 'one', primaryStorage: 'small' }));
    assert.equal(await where('far-from-it'), 'small');
  });

  it('refuses to provision more than the over-commit ratio allows, with figures, and claims nothing', async () => {
    const { total } = await capacity('large');
    const before = await capacity('large');
    const size = Math.ceil((total * 0.1) / GiB) * GiB;
    await assert.rejects(
      create({ name: 'huge', size, primaryStorage: 'large' }),
      failsWith('NO_CAPACITY', new RegExp(`large: ${size} bytes more .* over-commit 0.1`)),
    );
    await assert.rejects(
      create({ name: 'many', size: GiB, count: size / GiB, primaryStorage: 'large' }),
      failsWith('NO_CAPACITY', /over-commit/),
    );
    assert.deepEqual({ ...(await capacity('large')), available: 0 }, { ...before, available: 0 });
    await assert.rejects(api.getVolume({ params: { ref: 'huge' } }), failsWith('NOT_FOUND'));
    await done(create({ name: 'huge', size: GiB, primaryStorage: 'large' }));
    assert.equal((await capacity('large')).provisioned, before.provisioned + GiB);
    await assert.rejects(api.resizeVolume({ params: { ref: 'huge' }, body: { size } }), failsWith('NO_CAPACITY', /over-commit/));
    assert.equal((await api.getVolume({ params: { ref: 'huge' } })).size, GiB);
    await api.updatePrimaryStorage({ params: { ref: 'large' }, body: { overcommit: 2 } });
    await done(api.resizeVolume({ params: { ref: 'huge' }, body: { size } }, WAIT));
    assert.equal((await capacity('large')).provisioned, before.provisioned + size);
  });

  it('refuses an image that the pool has physically no room for', async () => {
    assert.ok((await capacity('small')).cache >= IMAGE);
    const wanted = { name: 'too-much', image: 'two', primaryStorage: 'small' };
    await assert.rejects(
      create(wanted),
      failsWith('NO_CAPACITY', /small: \d+ bytes would be left of \d+, below the physical threshold/),
    );
    await assert.rejects(api.addToCache({ body: { image: 'two', primaryStorage: 'small' } }), failsWith('NO_CAPACITY', /small/));
    await done(create({ ...wanted, primaryStorage: undefined }));
    assert.equal(await where('too-much'), 'large');
  });

  it('promises room before the work begins, so that two at once do not count on the same bytes', async () => {
    await done(api.deleteVolume({ params: { ref: 'far-from-it' } }, WAIT));
    await done(api.emptyTrash({ body: { primaryStorage: 'small' } }, WAIT));
    await done(api.evictFromCache({ body: { image: 'one', primaryStorage: 'small' } }, WAIT));
    const { id } = await whileHeld(async () => {
      const first = await api.createVolumes({ body: { name: 'first', image: 'one', primaryStorage: 'small' } });
      assert.equal((await capacity('small')).reserved, (await api.getImage({ params: { ref: 'one' } })).size);
      await assert.rejects(
        create({ name: 'second', image: 'two', primaryStorage: 'small' }),
        failsWith('NO_CAPACITY', /physical threshold/),
      );
      // the same image again is on its way already and needs no more room
      await api.createVolumes({ body: { name: 'first-again', image: 'one', primaryStorage: 'small' } });
      assert.equal((await capacity('small')).reserved, (await api.getImage({ params: { ref: 'one' } })).size);
      return first;
    });
    assert.equal((await house.ended(id)).state, 'succeeded');
    await until('the promise is kept', async () => (await capacity('small')).reserved === 0);
  });

  it('gives back what was promised when the work fails', async () => {
    await done(house.importFile('two.raw', { name: 'lost', sourceFormat: 'raw' }));
    const { id } = await api.getImage({ params: { ref: 'lost' } });
    const before = { ...(await capacity('large')), available: 0 };
    rmSync(join(store, 'images', id), { recursive: true });
    const failed = await create({ name: 'of-lost', image: 'lost', count: 3, primaryStorage: 'large' });
    assert.equal(failed.state, 'failed');
    assert.equal(failed.error!.code, 'OBJECT_MISSING', failed.error!.detail);
    assert.deepEqual({ ...(await capacity('large')), available: 0 }, before);
    assert.equal((await api.listCache({ query: { image: 'lost' } })).items.length, 0);
    assert.equal((await api.listVolumes({ query: { image: 'lost' } })).items.length, 0);
  });

  it('passes over pools that are disabled or in maintenance, and says of each why', async () => {
    await done(api.maintainPrimaryStorage({ params: { ref: 'small' }, body: {} }, WAIT));
    await done(create({ name: 'elsewhere', size: MiB }));
    assert.equal(await where('elsewhere'), 'large');
    await update('large', 'disabled');
    const reasons = /(?=.*small is in state maintenance)(?=.*large is in state disabled)/;
    await assert.rejects(create({ name: 'nowhere', size: MiB }), failsWith('NO_STORAGE', reasons));
    await assert.rejects(
      create({ name: 'nowhere', size: MiB, primaryStorage: 'large' }),
      failsWith('NO_STORAGE', /large is in state disabled/),
    );
    await assert.rejects(
      api.addToCache({ body: { image: 'one', primaryStorage: 'large' } }),
      failsWith('WRONG_STATE', /disabled/),
    );
    for (const name of ['small', 'large']) await update(name, 'enabled');
    await done(api.refreshPrimaryStorage({ params: { ref: 'small' } }, WAIT));
  });

  it('does not take a name for a reason', async () => {
    await api.updatePrimaryStorage({ params: { ref: 'large' }, body: { name: 'bytes', state: 'disabled' } });
    await assert.rejects(
      create({ name: 'nowhere', size: MiB, primaryStorage: 'bytes' }),
      failsWith('NO_STORAGE', /state disabled/),
    );
    await api.updatePrimaryStorage({ params: { ref: 'bytes' }, body: { name: 'large', state: 'enabled' } });
  });

  it('gives no new work to hosts in maintenance', async () => {
    const host = (state: 'enabled' | 'maintenance') => api.updateHost({ params: { ref: 'host-1' }, body: { state } });
    await host('maintenance');
    await assert.rejects(
      create({ name: 'nowhere', size: MiB }),
      failsWith('NO_STORAGE', /(?=.*small is not connected on any enabled host)(?=.*large)/),
    );
    await assert.rejects(create({ name: 'nowhere', size: MiB, host: 'host-1' }), failsWith('NO_STORAGE', /on host host-1/));
    await assert.rejects(house.importFile('one.raw', { name: 'nowhere' }), failsWith('NO_HOST'));
    await assert.rejects(api.resizeVolume({ params: { ref: 'huge' }, body: { size: 64 * GiB } }), failsWith('NO_HOST', /host-1/));
    await host('enabled');
  });

  it('puts images only on backup storages that are enabled', async () => {
    await api.updateBackupStorage({ params: { ref: 'depot' }, body: { state: 'maintenance' } });
    await assert.rejects(house.importFile('one.raw', { name: 'nowhere' }), failsWith('NO_STORAGE'));
    await assert.rejects(
      house.importFile('one.raw', { name: 'nowhere', backupStorages: ['depot'] }),
      failsWith('NO_STORAGE', /depot is connected and maintenance/),
    );
    await api.updateBackupStorage({ params: { ref: 'depot' }, body: { state: 'enabled' } });
  });
});
