import assert from 'node:assert/strict';
import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Volume } from '../../shared/model.ts';
import { done, WAIT } from '../servers/cistern.ts';
import { type Disk, openDisk } from '../servers/disk.ts';
import { type House, makeDisk, MiB, openHouse, sameContent } from './house.ts';

/** One file system that both hosts see, as a cluster file system that the operator has mounted. */
describe('a pool in a folder that two hosts share', () => {
  let house: House;
  let disk: Disk;
  let pool: string;
  const hosts = ['host-1', 'host-2'];
  const create = async (name: string, host: string): Promise<Volume> => {
    await done(house.api.createVolumes({ body: { name, image: 'debian', primaryStorage: 'shared', host } }, WAIT));
    return house.api.getVolume({ params: { ref: name } });
  };

  beforeEach(async () => {
    disk = await openDisk('ext4', { size: 256 });
    pool = join(disk.path, 'pool');
    await mkdir(pool);
    house = await openHouse({ hosts });
    await house.addStore('shelf');
    await makeDisk(join(house.files, 'debian.raw'), 40 * MiB, 'debian');
    await done(house.importFile('debian.raw'));
  });
  afterEach(async () => {
    await house[Symbol.asyncDispose]();
    await disk[Symbol.asyncDispose]();
  });
  const add = () => house.api.addPrimaryStorage({ body: { name: 'shared', type: 'shared-dir', config: { path: pool } } }, WAIT);

  it('is one pool: a host clones what the other one has cached, and only one fetches what both ask for at once', async () => {
    await done(add());
    const made = await Promise.all(hosts.map((host, i) => create(`disk-${i}`, host)));
    assert.deepEqual(await readdir(join(pool, 'cache')), [made[0]!.imageId]);
    const { items } = await house.api.listCache();
    assert.equal(items.length, 1);
    const { items: operations } = await house.api.listOperations({ query: { limit: 100 } });
    const whole = await Promise.all(operations.map(({ id }) => house.api.getOperation({ params: { ref: id }, query: {} })));
    const fills = whole.flatMap(({ steps = [] }) => steps.filter(step => step.name === 'fill the image cache'));
    assert.equal(fills.length, 1);
    const original = { path: join(house.files, 'debian.raw'), format: 'raw' };
    for (const volume of made) await sameContent(house.volumeFile(pool, volume), original);
  });

  it('is refused where the folder is only one of the host itself, and leaves nothing there', async () => {
    const bare = house.cistern.dir('not-mounted');
    const adding = house.api.addPrimaryStorage({ body: { name: 'bare', type: 'shared-dir', config: { path: bare } } }, WAIT);
    await assert.rejects(done(adding), /POOL_UNAVAILABLE.*nothing is mounted/);
    assert.deepEqual(await readdir(bare), []);
  });
});
