/** A controller whose database is lost altogether gets back what lies on the storages, by scanning them. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, rmSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import type { Operation, PrimaryStorage } from '../../shared/model.ts';
import { done, WAIT } from '../servers/cistern.ts';
import { failsWith, filesBelow, type House, makeDisk, MiB, openHouse, sameContent, sha256 } from './house.ts';

describe('a controller that lost its database', function () {
  this.timeout(120_000);
  let house: House;
  let api: House['api'];
  let disk: string;
  let store: string;
  let pool: (host: number) => string;
  let storages: PrimaryStorage[];
  let known: unknown;
  /** Everything on pools and stores, with digests. */
  let truth: Record<string, string>;

  before(async () => {
    house = await openHouse({ hosts: ['host-1', 'host-2'] });
    ({ api } = house);
    store = await house.addStore('depot');
    pool = await house.addPool('fast');
    disk = await makeDisk(join(house.files, 'disk.raw'), 16 * MiB, 'rebuilt');
    for (const name of ['base', 'other']) await done(house.importFile('disk.raw', { name, media: 'data' }));
    await create({ name: 'boot', kind: 'root', image: 'base', host: 'host-1' });
    await create({ name: 'many', count: 3, image: 'base', host: 'host-2' });
    await create({ name: 'plain', size: 8 * MiB, host: 'host-2' });
    await create({ name: 'gone', image: 'base', host: 'host-1' });
    await done(api.resizeVolume({ params: { ref: 'boot' }, body: { size: 64 * MiB } }, WAIT));
    await done(api.deleteVolume({ params: { ref: 'gone' } }, WAIT));
  });
  after(() => house?.[Symbol.asyncDispose]());

  const create = (body: object): Promise<Operation> =>
    done(api.createVolumes({ body: { count: 1, primaryStorage: 'fast', ...body } as never }, WAIT));
  const lie = (): Record<string, string> =>
    Object.fromEntries(
      [pool(1), pool(2), store].flatMap(root => filesBelow(root).map(file => [join(root, file), sha256(join(root, file))])),
    );
  /** Volumes, trash, images and cache by names instead of the ids of hosts, which are new ones. */
  const listed = async () => {
    // the moments at which rows were made are not those at which files were
    const createdAt = undefined;
    const hosts = new Map((await api.listHosts()).items.map(host => [host.id, host.name]));
    const byName = (a: { name: string }, b: { name: string }) => a.name.localeCompare(b.name);
    const [volumes, trash, images, cache] = [await api.listVolumes(), await api.listTrash(), await api.listImages(), await api.listCache()]; // prettier-ignore
    return {
      volumes: volumes.items.map(one => ({ ...one, createdAt, hostId: hosts.get(one.hostId ?? '') })).sort(byName),
      trash: trash.items.map(({ volumeId, name, allocated, hostId }) => ({
        volumeId,
        name,
        allocated,
        host: hosts.get(hostId!),
      })),
      images: images.items.map(one => ({ ...one, createdAt, replicas: one.replicas.map(({ status }) => status) })).sort(byName),
      cache: cache.items.map(one => [one.imageId, hosts.get(one.hostId ?? ''), one.status, one.volumes]).sort(),
    };
  };
  const scan = async (body: object = {}) => {
    const { output } = await done(api.scanPrimaryStorage({ params: { ref: 'fast' }, body }, WAIT));
    return output!.differences as { what: string; kind: string; id: string; name?: string; note?: string }[];
  };
  const words = (differences: Awaited<ReturnType<typeof scan>>) => differences.map(({ what, kind, name }) => `${what} ${kind} ${name ?? ''}`.trim()).sort(); // prettier-ignore

  it('is begun anew, with its hosts, its storages and what they are', async () => {
    const { controller, agents } = house.cistern;
    storages = (await api.listPrimaryStorages()).items;
    assert.deepEqual(await scan(), [], 'all is as it is known');
    known = await listed();
    truth = lie();
    await controller.stop();
    const state = join(house.cistern.folder, 'controller/state');
    for (const name of readdirSync(state).filter(one => one.startsWith('cistern.db') || one === 'backup'))
      rmSync(join(state, name), { recursive: true });
    await controller.start();
    assert.deepEqual((await api.listHosts()).items, []);
    for (const [i, { url, token }] of agents.entries())
      await done(api.addHost({ body: { name: `host-${i + 1}`, url, token } }, WAIT));
    await done(api.addBackupStorage({ body: { name: 'depot', type: 'dir', config: { path: store } } }, WAIT));
  });

  it('takes a pool for its own only by the id that the pool has', async () => {
    const { name, type, config } = storages.find(storage => storage.name === 'fast')!;
    const pathId = (JSON.parse(readFileSync(join(pool(1), 'pool.json'), 'utf8')) as { id: string }).id;
    const add = (id?: string) => api.addPrimaryStorage({ body: { name, id, type, config } }, WAIT);
    const { error } = await add();
    assert.equal(error?.code, 'POOL_IDENTITY');
    assert.match(error.action, new RegExp(`--id ${pathId}`));
    await done(add(pathId));
    await assert.rejects(api.addPrimaryStorage({ body: { name: 'twice', id: pathId, type, config } }), failsWith('IN_USE'));
    assert.deepEqual(lie(), truth);
  });

  it('adopts volumes once it knows the images that they stand on, and not before', async () => {
    assert.ok((await scan({ adopt: true })).filter(one => /adopt that one first/.test(one.note ?? '')).length >= 5);
    assert.deepEqual((await api.listVolumes()).items.map(volume => volume.name), ['plain']); // prettier-ignore
    await done(api.scanBackupStorage({ params: { ref: 'depot' }, body: { adopt: true } }, WAIT));
    assert.deepEqual(words(await scan()), [
      'orphan cached image',
      'orphan cached image',
      'orphan volume boot',
      'orphan volume in the trash gone',
      'orphan volume many-1',
      'orphan volume many-2',
      'orphan volume many-3',
    ]);
    assert.ok((await scan({ adopt: true })).every(one => one.what === 'adopted'));
    assert.deepEqual(await scan({ check: true }), []);
  });

  it('lists the same volumes and images as before, and works with them', async () => {
    assert.deepEqual(await listed(), known);
    assert.deepEqual(lie(), truth, 'nothing on the storages was changed');
    const boot = await api.getVolume({ params: { ref: 'boot' } });
    assert.equal(boot.size, 64 * MiB);
    await sameContent(house.volumeFile(pool(1), boot), { path: disk, format: 'raw' });
    await done(api.deleteVolume({ params: { ref: 'many-2' } }, WAIT));
    await create({ name: 'new', image: 'base', host: 'host-2' });
    await done(api.emptyTrash({ body: {} }, WAIT));
  });

  it('tells what is broken in a pool, changes nothing by looking, and lets rows follow what lies there', async () => {
    const { path } = house.volumeFile(pool(2), await api.getVolume({ params: { ref: 'many-1' } }));
    truncateSync(path, 64 * 1024);
    rmSync(join(pool(2), 'volumes', (await api.getVolume({ params: { ref: 'plain' } })).id), { recursive: true });
    const boot = await api.getVolume({ params: { ref: 'boot' } });
    const { imageId } = boot;
    rmSync(join(pool(1), 'cache', imageId!), { recursive: true });
    const broken = ['damaged volume boot', 'damaged volume many-1', 'missing cached image', 'missing volume plain'];
    const found = await scan({ check: true });
    assert.deepEqual(words(found), broken);
    assert.match(found.find(one => one.name === 'boot')!.note!, /the cached image .* that it stands on is not there/);
    assert.match(found.find(one => one.name === 'many-1')!.note!, /qemu-img check/);
    const repaired = await scan({ repair: true });
    assert.deepEqual(words(repaired).filter(one => one.startsWith('repaired')), ['repaired cached image', 'repaired volume plain']); // prettier-ignore
    assert.equal((await api.getVolume({ params: { ref: 'plain' } })).status, 'missing');
    // the image that the volume stands on comes back from its replica
    await done(api.addToCache({ body: { image: 'base', primaryStorage: 'fast', host: 'host-1' } }, WAIT));
    assert.deepEqual(words(await scan({ check: true })), ['damaged volume many-1', 'missing volume plain']);
    await sameContent(house.volumeFile(pool(1), boot), { path: disk, format: 'raw' });
  });
});
