/** The disk under a pool fails to write or to read, as a dying one does, or one that was promised more than there is. */
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Operation, Volume } from '../../shared/model.ts';
import { failsWith, filesBelow, type House, makeDisk, MiB, openHouse, sameContent } from '../e2e/house.ts';
import { type BadDisk, openBadDisk } from '../servers/bad-disk.ts';
import { done, WAIT } from '../servers/cistern.ts';

const NEVER = '0 0 1 1 *';
const schedules = { capacity: NEVER, reconnect: NEVER, trash: NEVER, cache: NEVER, prune: NEVER };

describe('a pool on a disk with I/O errors', () => {
  let house: House;
  let api: House['api'];
  let disk: BadDisk;
  let pool: string;
  let source: string;

  before(async function () {
    this.timeout(60_000);
    house = await openHouse({ hosts: ['host-1'], controller: { schedules } });
    api = house.api;
    disk = await openBadDisk(house.cistern.dir('disk'));
    pool = join(disk.path, 'pool');
    mkdirSync(pool);
    const config = { path: pool };
    await done(api.addPrimaryStorage({ body: { name: 'fast', type: 'local', config, overcommit: 100 } }, WAIT));
    await house.addStore('depot');
    await house.addStore('other');
    source = await makeDisk(join(house.files, 'disk.raw'), 8 * MiB, 'bad-pool');
    await done(house.importFile('disk.raw', { name: 'base', backupStorages: ['depot', 'other'] }));
  });
  after(async () => {
    await house?.cistern.agents[0]!.stop();
    await disk?.[Symbol.asyncDispose]();
    await house?.[Symbol.asyncDispose]();
  });

  const inPool = (area: string) => readdirSync(join(pool, area)).sort();
  const volumes = async (): Promise<Volume[]> => (await api.listVolumes({ query: { limit: 1000 } })).items;
  const cache = () => api.addToCache({ body: { image: 'base', primaryStorage: 'fast' } }, WAIT);
  const clone = (name: string, count: number) => api.createVolumes({ body: { name, image: 'base', count } }, WAIT);
  const remove = (...ids: string[]) => api.deleteVolumes({ body: { volumes: ids } }, WAIT);
  const whole = (volume: Volume) => sameContent(house.volumeFile(pool, volume), { path: source, format: 'raw' });

  /** What the controller lists is what lies in the pool, and nothing unfinished is left. */
  async function nothingHalfMade(): Promise<void> {
    assert.deepEqual(inPool('tmp'), []);
    assert.deepEqual(inPool('volumes'), (await volumes()).map(one => one.id).sort()); // prettier-ignore
    assert.deepEqual(inPool('trash'), (await api.listTrash()).items.map(one => one.volumeId).sort()); // prettier-ignore
    assert.deepEqual(inPool('cache'), (await api.listCache()).items.map(one => one.imageId).sort()); // prettier-ignore
    assert.deepEqual(filesBelow(pool).filter(name => /\.(next|part)$/.test(name)), []); // prettier-ignore
  }

  /** It failed, says that the disk did, and names the file; no path of ours that means nothing to others. */
  function failsAsDisk({ state, error }: Operation, code = 'POOL_IO_ERROR'): void {
    assert.deepEqual([state, error?.code], ['failed', code], error?.detail);
    assert.match(error!.detail, /EIO|input\/output error/i);
    assert.ok(error!.detail.includes(pool), error!.detail);
    assert.doesNotMatch(error!.detail, /\/proc\/self/);
    assert.match(error!.action, /disk/);
  }

  it('takes no image into its cache that it could not bring to the disk, and blames no replica for it', async () => {
    {
      using _bad = disk.breaks('write data');
      const filled = await cache();
      failsAsDisk(filled);
      assert.equal(filled.error!.replicas, undefined);
    }
    await nothingHalfMade();
    await done(cache());
    await nothingHalfMade();
  });

  it('makes no clone that it could not bring to the disk', async () => {
    for (const count of [1, 5]) {
      {
        using _bad = disk.breaks('write data');
        failsAsDisk(await clone(`lost-${count}`, count));
      }
      await nothingHalfMade();
    }
    await done(clone('vm', 5));
    await nothingHalfMade();
    for (const volume of await volumes()) await whole(volume);
  });

  it('fails to grow a volume cleanly, and grows it once the disk is mended', async () => {
    const [volume] = await volumes();
    const grow = () => api.resizeVolume({ params: { ref: volume!.id }, body: { size: 1024 * MiB } }, WAIT);
    {
      using _bad = disk.breaks('write data');
      failsAsDisk(await grow());
    }
    await nothingHalfMade();
    assert.equal((await api.getVolume({ params: { ref: volume!.id } })).size, volume!.size);
    await done(grow());
    await whole(volume!);
  });

  it('lets volumes be deleted and the trash be emptied', async () => {
    const [first, second] = await volumes();
    {
      using _bad = disk.breaks('write data');
      await remove(first!.id);
    }
    await nothingHalfMade();
    await done(remove(second!.id));
    await done(api.emptyTrash({ body: {} }, WAIT));
    await nothingHalfMade();
    assert.deepEqual(inPool('trash'), []);
  });

  it('reads no volume wrongly', async () => {
    const [volume] = await volumes();
    const upload = () =>
      api.uploadVolume({ params: { ref: volume!.id }, body: { name: 'saved', backupStorages: ['depot'] } }, WAIT);
    await disk.forget();
    {
      using _bad = disk.breaks('read');
      failsAsDisk(await upload());
    }
    await done(upload());
    const { id } = await api.getImage({ params: { ref: 'saved' } });
    const saved = join(house.cistern.folder, 'store-depot/images', id, 'image.qcow2');
    await sameContent({ path: saved, format: 'qcow2' }, { path: source, format: 'raw' });
    await nothingHalfMade();
  });

  it('whose file system gives up is disconnected with the reason, and in use again once that is mounted anew', async () => {
    const before = filesBelow(pool);
    {
      using _bad = disk.breaks('write');
      for (const count of [120, 1]) {
        const { error } = await clone(`gone-${count}`, count);
        assert.ok(['POOL_IO_ERROR', 'POOL_UNAVAILABLE'].includes(error!.code), error!.detail);
        assert.match(error!.detail, /input\/output error|EIO|read-only file system/i);
      }
      await api.refreshPrimaryStorage({ params: { ref: 'fast' } }, WAIT);
    }
    const { hosts, status } = await api.getPrimaryStorage({ params: { ref: 'fast' } });
    assert.equal(status, 'disconnected');
    assert.match(hosts[0]!.reason!, /read-only file system|i\/o error/i);
    await assert.rejects(clone('none', 1), failsWith('NO_STORAGE'));
    await disk.remountFresh();
    await api.refreshPrimaryStorage({ params: { ref: 'fast' } }, WAIT);
    await nothingHalfMade();
    assert.deepEqual(filesBelow(pool), before);
    await done(clone('again', 120));
    await nothingHalfMade();
    for (const volume of (await volumes()).slice(-3)) await whole(volume);
  });
});
