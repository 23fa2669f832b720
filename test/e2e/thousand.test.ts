/** A thousand linked clones of one image, sixteen asked for at a time. */
import assert from 'node:assert/strict';
import { lstatSync } from 'node:fs';
import { join } from 'node:path';
import { done, WAIT } from '../servers/cistern.ts';
import { filesBelow, type House, makeDisk, MiB, NO_SCHEDULES, openHouse, sameContent } from './house.ts';

const COUNT = 1000;
const AT_ONCE = 16;
const SIZE = 32 * MiB;

describe('a thousand linked clones of one image', function () {
  this.timeout(240_000);
  let house: House;
  let api: House['api'];
  let pool: string;
  let disk: string;

  before(async () => {
    house = await openHouse({ hosts: ['host-1'], controller: { schedules: NO_SCHEDULES } });
    ({ api } = house);
    await house.addStore('depot');
    pool = (await house.addPool('fast', { overcommit: 1000 }))(1);
    disk = await makeDisk(join(house.files, 'disk.raw'), 16 * MiB, 'thousand');
    await done(house.importFile('disk.raw', { name: 'base' }));
  });
  after(() => house?.[Symbol.asyncDispose]());

  const capacity = async () => {
    await done(api.refreshPrimaryStorage({ params: { ref: 'fast' } }, WAIT));
    return (await api.getPrimaryStorage({ params: { ref: 'fast' } })).capacity!;
  };
  /** Bytes that files take on the disk. */
  const taken = (area: string) =>
    filesBelow(join(pool, area)).reduce((sum, file) => sum + lstatSync(join(pool, area, file)).blocks * 512, 0);
  const listed = async () => {
    const items = [];
    for (let cursor: string | undefined; ;) {
      const page = await api.listVolumes({ query: { limit: 1000, cursor } });
      items.push(...page.items);
      if (page.next === null) return items;
      cursor = page.next;
    }
  };

  it('are all made, each as it should be, though all ask at once for an image that is not cached yet', async () => {
    const names = Array.from({ length: COUNT }, (_, i) => `clone-${i}`);
    const todo = [...names];
    await Promise.all(
      Array.from({ length: AT_ONCE }, async () => {
        for (let name = todo.pop(); name !== undefined; name = todo.pop())
          await done(api.createVolumes({ body: { name, image: 'base', size: SIZE, primaryStorage: 'fast' } }, WAIT));
      }),
    );
    const volumes = await listed();
    assert.deepEqual(volumes.map(volume => volume.name).sort(), names.sort());
    assert.ok(volumes.every(volume => volume.status === 'ready' && volume.size === SIZE));
    assert.equal(new Set(volumes.map(volume => volume.path)).size, COUNT);
    assert.deepEqual((await done(api.scanPrimaryStorage({ params: { ref: 'fast' }, body: {} }, WAIT))).output!.differences, []);
    for (const volume of [volumes[0]!, volumes[499]!, volumes[999]!])
      await sameContent(house.volumeFile(pool, volume), { path: disk, format: 'raw' });
  });

  it('are counted to the byte, also once half of them are in the trash, and when all are gone', async () => {
    const reckoned = async () => {
      const { provisioned, reserved, volumes, cache, trash } = await capacity();
      return { provisioned, reserved, volumes, cache, trash };
    };
    const onDisk = (count: number) => ({
      provisioned: count * SIZE,
      reserved: 0,
      volumes: taken('volumes'),
      cache: taken('cache'),
      trash: taken('trash'),
    });
    assert.deepEqual(await reckoned(), onDisk(COUNT));
    const { output } = await done(api.refreshPrimaryStorage({ params: { ref: 'fast' } }, WAIT));
    const [drift] = output!.drift as Record<string, number>[];
    assert.deepEqual([drift!.volumes, drift!.cache, drift!.trash], [0, 0, 0], 'nothing drifts from what was measured');
    const volumes = (await listed()).map(volume => volume.id);
    await done(api.deleteVolumes({ body: { volumes: volumes.slice(0, COUNT / 2) } }, WAIT));
    assert.deepEqual(await reckoned(), onDisk(COUNT / 2));
    await done(api.deleteVolumes({ body: { volumes: volumes.slice(COUNT / 2) } }, WAIT));
    await done(api.emptyTrash({ body: {} }, WAIT));
    assert.deepEqual(await reckoned(), onDisk(0));
    assert.deepEqual([taken('volumes'), taken('trash')], [0, 0]);
  });
});
