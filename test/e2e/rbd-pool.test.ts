/** The main job on a pool of a Ceph cluster, through controller and agent. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { cephTool, poolNamespace, tellsRoom } from '../conformance/primary-rbd-target.ts';
import { startCeph, type TestCeph } from '../servers/ceph.ts';
import { done, WAIT } from '../servers/cistern.ts';
import { failsWith, type House, makeDisk, MiB, openHouse, sameContent } from './house.ts';

const SIZE = 12 * MiB;

describe('a primary storage on Ceph', function () {
  this.timeout(120_000);
  let ceph: TestCeph;
  let house: House;
  let api: House['api'];
  let store: string;
  let disk: string;
  let config: Awaited<ReturnType<typeof poolNamespace>>;

  before(async () => {
    ceph = await startCeph({ rgw: false, mgr: true });
    house = await openHouse({ hosts: ['host-1', 'host-2'] });
    ({ api } = house);
    store = await house.addStore('depot');
    await tellsRoom(ceph);
    config = await poolNamespace(ceph);
    disk = await makeDisk(join(house.files, 'disk.raw'), SIZE, 'rbd');
    await done(house.importFile('disk.raw', { name: 'base' }));
  });
  after(async () => {
    await house?.[Symbol.asyncDispose]();
    await ceph?.stop();
  });

  const images = async () => (await cephTool(ceph, 'rbd', ['ls'], config.namespace)).split('\n').filter(Boolean);
  const volume = (ref: string) => api.getVolume({ params: { ref } });

  it('is refused with what is wrong with it, and added with the rights that it needs', async () => {
    const add = (other: object) =>
      api.addPrimaryStorage({ body: { name: 'ceph', type: 'rbd', config: { ...config, ...other } } }, WAIT);
    const refused = await add({ key: `${'A'.repeat(38)}==` });
    assert.equal(refused.error?.code, 'POOL_CONFIG');
    assert.deepEqual(await images(), []);
    await done(add({}));
    const shown = await api.getPrimaryStorage({ params: { ref: 'ceph' } });
    assert.deepEqual([shown.status, shown.shared], ['connected', true]);
    assert.ok(!JSON.stringify(shown).includes(config.key), 'the key is shown');
  });

  it('clones on two hosts stand on one cached image, as RBD images that show its bytes', async () => {
    const create = (name: string, host: string) =>
      api.createVolumes({ body: { name, image: 'base', primaryStorage: 'ceph', host, size: 16 * MiB } }, WAIT);
    await Promise.all([create('one', 'host-1'), create('two', 'host-2')].map(done));
    assert.equal((await api.listCache()).items.length, 1);
    const { format, path } = await volume('one');
    assert.equal(format, 'raw');
    const spec = `rbd/${config.namespace}/${path!}`;
    const { parent } = JSON.parse(await cephTool(ceph, 'rbd', ['info', '--format', 'json', spec])) as {
      parent: { image: string };
    };
    assert.match(parent.image, /^cache-/);
    const out = join(house.cistern.dir('out'), 'one.raw');
    await cephTool(ceph, 'rbd', ['export', '--no-progress', spec, out]);
    assert.ok((await readFile(out)).subarray(0, SIZE).equals(await readFile(disk)), 'the volume shows other bytes');
  });

  it('volumes grow, become images, and go through the trash', async () => {
    await done(api.resizeVolume({ params: { ref: 'one' }, body: { size: 32 * MiB } }, WAIT));
    await done(api.uploadVolume({ params: { ref: 'two' }, body: { name: 'again' } }, WAIT));
    const { id } = await api.getImage({ params: { ref: 'again' } });
    await sameContent({ path: join(store, 'images', id, 'image.qcow2'), format: 'qcow2' }, { path: disk, format: 'raw' });
    await done(api.deleteVolumes({ body: { volumes: ['one', 'two'] } }, WAIT));
    assert.equal((await images()).filter(name => name.startsWith('trash-')).length, 2);
    await done(api.emptyTrash({ body: {} }, WAIT));
    assert.equal((await images()).length, 1);
  });

  it('volumes move there from a host and back, and stand alone afterwards', async () => {
    const pool = await house.addPool('fast');
    await done(api.createVolumes({ body: { name: 'mover', image: 'base', primaryStorage: 'fast', host: 'host-2' } }, WAIT));
    const there = await done(api.migrateVolume({ params: { ref: 'mover' }, body: { primaryStorage: 'ceph' } }, WAIT));
    assert.equal(there.output!.linked, false);
    const { path, format } = await volume('mover');
    assert.deepEqual([format, (await images()).includes(path!)], ['raw', true]);
    const back = { primaryStorage: 'fast', host: 'host-1' };
    await done(api.migrateVolume({ params: { ref: 'mover' }, body: back }, WAIT));
    const { id } = await volume('mover');
    assert.ok(!(await images()).some(name => name.includes(id)));
    await sameContent(house.volumeFile(pool(1), await volume('mover')), { path: disk, format: 'raw' });
    for (const ref of ['ceph', 'fast'])
      assert.deepEqual((await done(api.scanPrimaryStorage({ params: { ref }, body: {} }, WAIT))).output!.differences, []);
    await done(api.deleteVolume({ params: { ref: 'mover' } }, WAIT));
  });

  it('is given up once nothing is left on it', async () => {
    await done(api.createVolumes({ body: { name: 'last', size: MiB, primaryStorage: 'ceph' } }, WAIT));
    await assert.rejects(done(api.deletePrimaryStorage({ params: { ref: 'ceph' } }, WAIT)), failsWith('IN_USE'));
    await done(api.deleteVolumes({ body: { volumes: ['last'] } }, WAIT));
    await done(api.deletePrimaryStorage({ params: { ref: 'ceph' } }, WAIT));
    assert.deepEqual(await images(), []);
  });
});
