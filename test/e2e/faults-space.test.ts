import assert from 'node:assert/strict';
import { closeSync, mkdirSync, openSync, readdirSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import { done, WAIT } from '../servers/cistern.ts';
import { failsWith, type House, makeDisk, MiB, NO_SCHEDULES, openHouse, until } from './house.ts';

describe('a full disk', () => {
  let house: House;
  let api: House['api'];
  let pool: string;
  let state: string;
  const mounts: string[] = [];

  before(async function () {
    this.timeout(60_000);
    // measured when they were empty, so that placement lets work through that the disk then refuses
    house = await openHouse({ hosts: ['host-1'], controller: { physicalThreshold: 1, schedules: NO_SCHEDULES } });
    api = house.api;
    await house.addStore('depot');
    await makeDisk(join(house.files, 'disk.raw'), 16 * MiB, 'space');
    await done(house.importFile('disk.raw', { name: 'base' }));
    pool = await mountSmall('pool', 64);
    await done(api.addPrimaryStorage({ body: { name: 'small', type: 'local', config: { path: pool }, overcommit: 1000 } }, WAIT));
    await done(api.createVolumes({ body: { name: 'v', image: 'base', count: 3 } }, WAIT));
    // the controller starts again with its state on a small disk
    const { controller, folder } = house.cistern;
    await controller.stop();
    const stateDir = join(folder, 'controller/state');
    state = await mountSmall('state', 32, stateDir);
    await controller.start();
  });
  after(async () => {
    await house?.cistern.controller.stop();
    for (const path of mounts) await execa('umount', ['-l', '--', path]);
    await house?.[Symbol.asyncDispose]();
  });

  /** A file system of `size` MiB, with what lies at `target` where that is given. */
  async function mountSmall(name: string, size: number, target = house.cistern.dir(name)): Promise<string> {
    const image = join(house.cistern.folder, `${name}.img`);
    await execa('truncate', ['-s', `${size}M`, '--', image]);
    await execa('mkfs.ext4', ['-q', '-F', '-m', '0', '-d', target, '-E', 'root_owner=0:0', image]);
    await execa('mount', ['-o', 'loop', '--', image, target]);
    mounts.push(target);
    rmSync(join(target, 'lost+found'), { recursive: true, force: true });
    return target;
  }

  /** Leaves no free block; the disk has room again once the result is disposed of. */
  function fill(folder: string): Disposable {
    mkdirSync(folder, { recursive: true });
    const path = join(folder, 'ballast');
    const file = openSync(path, 'w');
    const block = Buffer.alloc(4096);
    try {
      for (;;) writeSync(file, block);
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC');
    }
    closeSync(file);
    return { [Symbol.dispose]: () => rmSync(path) };
  }

  it('under a pool refuses clones, and leaves nothing of them', async () => {
    using _full = fill(pool);
    const refused = await api.createVolumes({ body: { name: 'w', image: 'base', count: 50 } }, WAIT);
    assert.equal(refused.error?.code, 'POOL_FULL');
    assert.deepEqual(readdirSync(join(pool, 'tmp')), []);
    assert.equal(readdirSync(join(pool, 'volumes')).length, 3);
  });

  it('under a pool lets volumes grow and be deleted, and the trash be emptied', async () => {
    using _full = fill(pool);
    await done(api.resizeVolume({ params: { ref: 'v-1' }, body: { size: 32 * MiB } }, WAIT));
    await done(api.deleteVolumes({ body: { volumes: ['v-1', 'v-2'] } }, WAIT));
    assert.equal((await api.listTrash()).items.length, 2);
    assert.equal(readdirSync(join(pool, 'trash')).length, 2);
    await done(api.emptyTrash({ body: {} }, WAIT));
    assert.deepEqual(readdirSync(join(pool, 'trash')), []);
  });

  it('under the controller holds up what runs until there is room again, and says so to what is new', async () => {
    house.web.behave('/disk.raw', { stallAfter: 2 * MiB, times: 1 });
    const { id } = await api.importImage({ body: { name: 'late', source: { type: 'url', url: `${house.web.url}/disk.raw` } } });
    await until('the download has begun', async () => (await api.getOperation({ params: { ref: id } })).progress?.done);
    {
      using _full = fill(state);
      // until also the pages that the database has to spare are used up
      await until('the controller to run out of room', () =>
        api.createCluster({ body: { name: `c${Math.random().toString(36).slice(2)}` } }).then(
          () => false,
          error => failsWith('DATABASE_UNAVAILABLE', /full/)(error),
        ),
      );
      await assert.rejects(api.cancelOperation({ params: { ref: id } }), failsWith('DATABASE_UNAVAILABLE', /full/));
      // its end cannot be written down
      await house.web.close();
      await until('the failure of the import', () =>
        house.cistern.controller.log.some(line => line.includes('could not be driven to its end')),
      );
    }
    assert.equal((await house.ended(id)).state, 'failed');
    await done(api.createVolumes({ body: { name: 'after', size: MiB } }, WAIT));
  }).timeout(90_000);
});
