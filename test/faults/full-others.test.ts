/** Room ends under a backup storage, or under an agent's state folder with its spool and journal, at whichever step of an import. */
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { filesBelow, type House, makeDisk, MiB, NO_SCHEDULES, openHouse, sameContent, until } from '../e2e/house.ts';
import { done, WAIT } from '../servers/cistern.ts';
import { type Disk, type DiskKind, openDisk } from '../servers/disk.ts';
import { eachRoom } from './room.ts';

describe('a full disk', () => {
  for (const kind of ['ext4', 'xfs'] as const) {
    describe(`with ${kind} under a backup storage`, () => underStore(kind));
    describe(`with ${kind} under the state folder of an agent`, () => underAgent(kind));
  }
});

function underStore(kind: DiskKind): void {
  let house: House;
  let disk: Disk;
  let source: string;
  before(async function () {
    this.timeout(60_000);
    house = await openHouse();
    disk = await openDisk(kind, { size: 96, path: house.cistern.dir('disk') });
    const path = join(disk.path, 'store');
    mkdirSync(path);
    await done(house.api.addBackupStorage({ body: { name: 'shelf', type: 'dir', config: { path } } }, WAIT));
    source = await makeDisk(join(house.files, 'disk.raw'), 16 * MiB, 'full-store');
  });
  after(() => end(house, disk));

  it('takes an image whole or not at all, and lets it be deleted', async function () {
    this.timeout(120_000);
    const { api } = house;
    let n = 0;
    const codes = await eachRoom(
      disk,
      () => house.importFile('disk.raw', { name: `image-${++n}` }),
      async state => {
        const { items } = await api.listImages();
        assert.equal(items.length, state === 'succeeded' ? 1 : 0);
        const whole = items.flatMap(({ id }) => [`images/${id}/image.qcow2`, `images/${id}/manifest.json`]);
        assert.deepEqual(filesBelow(join(disk.path, 'store')), whole);
        for (const { id } of items) {
          const path = join(disk.path, 'store/images', id, 'image.qcow2');
          await sameContent({ path, format: 'qcow2' }, { path: source, format: 'raw' });
          await done(api.deleteImage({ params: { ref: id } }, WAIT));
        }
        assert.deepEqual(filesBelow(join(disk.path, 'store')), []);
      },
    );
    assert.deepEqual(codes, ['STORE_FULL']);
  });
}

function underAgent(kind: DiskKind): void {
  let house: House;
  let disk: Disk;
  before(async function () {
    this.timeout(60_000);
    house = await openHouse({
      controller: { taskRetrySeconds: 3, schedules: { ...NO_SCHEDULES, capacity: '* * * * * *', reconnect: '* * * * * *' } },
    });
    await house.addStore('depot');
    await makeDisk(join(house.files, 'disk.raw'), 16 * MiB, 'full-agent');
    await done(house.importFile('disk.raw', { name: 'base' }));
    const [agent] = house.cistern.agents;
    await agent!.stop();
    disk = await openDisk(kind, { size: 96, path: join(house.cistern.folder, 'host-1/state') });
    await agent!.start();
  });
  after(() => end(house, disk));

  it('fails imports cleanly, wherever the room ends, and takes them again when there is room', async function () {
    this.timeout(120_000);
    const { api } = house;
    let n = 0;
    const store = join(house.cistern.folder, 'store-depot/images');
    const before = filesBelow(store).length;
    const codes = await eachRoom(
      disk,
      () => house.importFile('disk.raw', { name: `image-${++n}` }),
      async state => {
        assert.equal(filesBelow(store).length, before + (state === 'succeeded' ? 2 : 0));
        assert.deepEqual(filesBelow(join(disk.path, 'spool')), []);
        if (state === 'succeeded') await done(api.deleteImage({ params: { ref: `image-${n}` } }, WAIT));
      },
    );
    assert.deepEqual(codes, ['NO_CAPACITY']);
  });

  it('makes, grows and deletes volumes on a pool with room, or fails cleanly and sees to the rest later', async function () {
    this.timeout(240_000);
    const { api } = house;
    const pool = (await house.addPool('fast'))(1);
    const rows = async () => (await api.listVolumes({ query: { limit: 1000 } })).items;
    let n = 0;
    const codes = await eachRoom(
      disk,
      () => api.createVolumes({ body: { name: `vm-${++n}`, size: MiB, count: 3, primaryStorage: 'fast' } }, WAIT),
      async state => {
        const made = (await rows()).filter(one => one.name.startsWith(`vm-${n}-`));
        assert.equal(made.length, state === 'succeeded' ? 3 : 0);
        if (made.length > 0) {
          const ref = made[0]!.name;
          const grown = await api.resizeVolume({ params: { ref }, body: { size: 2 * MiB } }, WAIT);
          assert.ok(['succeeded', 'failed'].includes(grown.state), 'it waits for room');
          const deleted = await api.deleteVolumes({ body: { volumes: made.slice(1).map(one => one.id) } }, WAIT);
          assert.ok(['succeeded', 'failed'].includes(deleted.state), 'it waits for room');
        }
        assert.deepEqual(readdirSync(join(pool, 'tmp')), []);
      },
    );
    assert.deepEqual([...new Set([...codes, 'NO_CAPACITY'])], ['NO_CAPACITY']);
    await until('all is known again', async () => (await rows()).every(one => one.status === 'ready'));
    const there = await rows();
    assert.deepEqual(readdirSync(join(pool, 'volumes')).sort(), there.map(one => one.id).sort()); // prettier-ignore
    await done(api.deleteVolumes({ body: { volumes: there.map(one => one.id) } }, WAIT));
  });
}

async function end(house: House | undefined, disk: Disk | undefined): Promise<void> {
  await house?.cistern.agents[0]!.stop();
  await disk?.[Symbol.asyncDispose]();
  await house?.[Symbol.asyncDispose]();
}
