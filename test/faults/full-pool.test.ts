import assert from 'node:assert/strict';
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Operation, Volume } from '../../shared/model.ts';
import { failsWith, filesBelow, type House, makeDisk, MiB, NO_SCHEDULES, openHouse, sameContent } from '../e2e/house.ts';
import { done, WAIT } from '../servers/cistern.ts';
import { type Disk, type DiskKind, openDisk } from '../servers/disk.ts';
import { eachRoom } from './room.ts';

describe('a pool on a full disk', () => {
  for (const kind of ['ext4', 'xfs'] as const) describe(`with ${kind}`, () => onFullPool(kind));
});

function onFullPool(kind: DiskKind): void {
  let house: House;
  let api: House['api'];
  let disk: Disk;
  let pool: string;
  let source: string;

  before(async function () {
    this.timeout(60_000);
    // measured when it was empty, so that placement lets work through that the disk then refuses
    house = await openHouse({
      hosts: ['host-1'],
      controller: { physicalThreshold: 1, schedules: NO_SCHEDULES },
    });
    api = house.api;
    await house.addStore('depot');
    source = await makeDisk(join(house.files, 'disk.raw'), 16 * MiB, 'full-pool');
    await done(house.importFile('disk.raw', { name: 'base' }));
    disk = await openDisk(kind, { size: 96, path: house.cistern.dir('disk') });
    pool = join(disk.path, 'pool');
    mkdirSync(pool);
    await done(add('small'));
  });
  after(async () => {
    await house?.cistern.agents[0]!.stop();
    await disk?.[Symbol.asyncDispose]();
    await house?.[Symbol.asyncDispose]();
  });

  const add = (name: string): Promise<Operation> =>
    api.addPrimaryStorage({ body: { name, type: 'local', config: { path: pool }, overcommit: 1000 } }, WAIT);
  const inPool = (area: string) => readdirSync(join(pool, area)).sort();
  const volumes = async (): Promise<Volume[]> => (await api.listVolumes({ query: { limit: 1000 } })).items;

  /** What the controller lists is what lies in the pool, and nothing unfinished is left. */
  async function nothingHalfMade(): Promise<void> {
    assert.deepEqual(inPool('tmp'), []);
    assert.deepEqual(inPool('volumes'), (await volumes()).map(one => one.id).sort()); // prettier-ignore
    assert.deepEqual(inPool('trash'), (await api.listTrash()).items.map(one => one.volumeId).sort()); // prettier-ignore
    assert.deepEqual(inPool('cache'), (await api.listCache()).items.map(one => one.imageId).sort()); // prettier-ignore
    assert.ok(
      filesBelow(pool).every(name => !/\.(next|part)$/.test(name)),
      String(filesBelow(pool)),
    );
  }

  it('takes an image into its cache whole or not at all, wherever the room ends', async () => {
    const cache = () => api.addToCache({ body: { image: 'base', primaryStorage: 'small' } }, WAIT);
    const codes = await eachRoom(disk, cache, nothingHalfMade);
    assert.deepEqual(codes, ['POOL_FULL']);
  });

  it('makes all of the clones or none, wherever the room ends', async () => {
    let tried = 0;
    const clone = () => api.createVolumes({ body: { name: `clone-${++tried}`, image: 'base', count: 5 } }, WAIT);
    const codes = await eachRoom(disk, clone, nothingHalfMade);
    assert.deepEqual(codes, ['POOL_FULL']);
    for (const volume of await volumes()) await sameContent(house.volumeFile(pool, volume), { path: source, format: 'raw' });
  });

  it('lets volumes be read, grow where that takes no room, and fails to grow cleanly where it does', async () => {
    const sizes = new Map<string, number>();
    const grow = async () => {
      const [volume] = await volumes();
      const size = volume!.size + 1024 * MiB;
      const grown = await api.resizeVolume({ params: { ref: volume!.id }, body: { size } }, WAIT);
      if (grown.state === 'succeeded') sizes.set(volume!.id, size);
      return grown;
    };
    const codes = await eachRoom(disk, grow, async () => {
      await nothingHalfMade();
      const [volume] = await volumes();
      await sameContent(house.volumeFile(pool, volume!), { path: source, format: 'raw' });
    });
    assert.ok(
      codes.every(code => code === 'POOL_FULL'),
      String(codes),
    );
    const [volume] = await volumes();
    assert.equal(volume!.size, sizes.get(volume!.id));
  });

  it('lets a volume be uploaded from it', async () => {
    using _full = await disk.fill();
    const [, volume] = await volumes();
    const upload = api.uploadVolume({ params: { ref: volume!.id }, body: { name: 'rescued', backupStorages: ['depot'] } }, WAIT);
    await done(upload);
  });

  it('lets volumes be deleted, the trash be emptied, and cached images be evicted', async () => {
    using _full = await disk.fill();
    const [first] = await volumes();
    await done(api.deleteVolumes({ body: { volumes: [first!.id] } }, WAIT));
    await nothingHalfMade();
    await done(api.deleteVolumes({ body: { volumes: (await volumes()).map(one => one.id) } }, WAIT));
    await done(api.emptyTrash({ body: {} }, WAIT));
    await done(api.evictFromCache({ body: { image: 'base', primaryStorage: 'small' } }, WAIT));
    await nothingHalfMade();
    assert.deepEqual([...inPool('volumes'), ...inPool('trash'), ...inPool('cache')], []);
  });

  it('that cannot be made for want of room leaves the folder as it was, and is made when there is room', async () => {
    await done(api.deletePrimaryStorage({ params: { ref: 'small' } }, WAIT));
    assert.deepEqual(filesBelow(pool), []);
    let tried = 0;
    const codes = await eachRoom(
      disk,
      () => add(`again-${++tried}`),
      async state => {
        if (state === 'succeeded') await done(api.deletePrimaryStorage({ params: { ref: `again-${tried}` } }, WAIT));
        else await assert.rejects(api.getPrimaryStorage({ params: { ref: `again-${tried}` } }), failsWith('NOT_FOUND'));
        assert.deepEqual(filesBelow(pool), []);
      },
    );
    assert.ok(
      codes.every(code => code === 'POOL_FULL'),
      String(codes),
    );
  });
}
