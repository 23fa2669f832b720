import assert from 'node:assert/strict';
import { existsSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import { done, WAIT } from '../servers/cistern.ts';
import { failsWith, type House, makeDisk, MiB, openHouse, until } from './house.ts';

const EVERY_SECOND = '* * * * * *';

describe('the regular work of the controller, every second, on a pool that counts as too full', () => {
  let house: House;
  let api: House['api'];
  let pool: string;

  before(async function () {
    this.timeout(60_000);
    const schedules = {
      capacity: EVERY_SECOND,
      reconnect: EVERY_SECOND,
      trash: EVERY_SECOND,
      cache: EVERY_SECOND,
      prune: EVERY_SECOND,
    };
    house = await openHouse({ controller: { schedules, trashHours: 0, cacheHighWatermark: 0, cacheLowWatermark: 0 } });
    api = house.api;
    await house.addStore('depot');
    pool = (await house.addPool('fast'))(1);
    for (const name of ['used', 'idle']) {
      await makeDisk(join(house.files, `${name}.raw`), 8 * MiB, name);
      await done(house.importFile(`${name}.raw`));
    }
  });
  after(() => house?.[Symbol.asyncDispose]());

  const cached = async (image: string) => (await api.listCache({ query: { image } })).items[0];
  const imageFolder = async (ref: string) => join(pool, 'cache', (await api.getImage({ params: { ref } })).id);

  it('evicts the image that no volume stands on, and never the one that has one', async () => {
    await done(api.createVolumes({ body: { name: 'standing', image: 'used' } }, WAIT));
    await done(api.addToCache({ body: { image: 'idle', primaryStorage: 'fast' } }, WAIT));
    await until('the idle image is evicted', async () => !(await cached('idle')));
    assert.equal(existsSync(await imageFolder('idle')), false, 'its files are gone');
    assert.equal((await cached('used'))?.status, 'ready', 'the other one stays');
    assert.equal(existsSync(await imageFolder('used')), true);
  });

  it('measures what a volume takes once its guest has written', async () => {
    const before = await api.getVolume({ params: { ref: 'standing' } });
    await execa('qemu-io', ['-f', 'qcow2', '-c', 'write -q 0 4M', '--', join(pool, before.path!)]);
    await until(
      'the volume is seen to have grown',
      async () => (await api.getVolume({ params: { ref: 'standing' } })).allocated! >= before.allocated! + 4 * MiB,
    );
  });

  it('notices a pool that went away, and connects it again when it is back', async () => {
    const status = async () => (await api.getPrimaryStorage({ params: { ref: 'fast' } })).status;
    renameSync(pool, `${pool}-away`);
    try {
      await until('the pool is disconnected', async () => (await status()) === 'disconnected');
      await assert.rejects(
        api.createVolumes({ body: { name: 'nowhere', size: MiB } }),
        failsWith('NO_STORAGE', /fast is not connected/),
      );
    } finally {
      renameSync(`${pool}-away`, pool);
    }
    await until('the pool is connected', async () => (await status()) === 'connected');
    await done(api.createVolumes({ body: { name: 'back', size: MiB } }, WAIT));
  });

  it('purges deleted volumes, and with the last one the image that it stood on', async () => {
    const folder = await imageFolder('used');
    const { id } = await api.getVolume({ params: { ref: 'standing' } });
    await done(api.deleteVolume({ params: { ref: 'standing' } }, WAIT));
    await until(
      'the trash is empty',
      async () => (await api.listTrash()).items.length === 0 && !existsSync(join(pool, 'trash', id)),
    );
    await until('the image is evicted', async () => !(await cached('used')));
    assert.equal(existsSync(folder), false);
  });

  it('keeps the files of a deleted image for its volumes, and forgets it with the last of them', async () => {
    await done(api.createVolumes({ body: { name: 'orphan', image: 'used' } }, WAIT));
    const { id } = await api.getImage({ params: { ref: 'used' } });
    await done(api.deleteImage({ params: { ref: 'used' } }, WAIT));
    const volume = await api.getVolume({ params: { ref: 'orphan' } });
    await execa('qemu-img', ['check', '-q', '-f', 'qcow2', '--', join(pool, volume.path!)]);
    await done(api.deleteVolume({ params: { ref: 'orphan' } }, WAIT));
    await until('the image is not known any more', async () => {
      const found = await api.getImage({ params: { ref: id } }).catch(() => undefined);
      return found === undefined && !existsSync(join(pool, 'cache', id));
    });
  });
});
