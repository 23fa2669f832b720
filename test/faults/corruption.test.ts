import assert from 'node:assert/strict';
import { chmodSync, copyFileSync, existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Image } from '../../shared/model.ts';
import { failsWith, type House, makeDisk, MiB, NO_SCHEDULES, openHouse, sameContent, until } from '../e2e/house.ts';
import { ask } from '../e2e/http.ts';
import { done, WAIT } from '../servers/cistern.ts';
import { flipBit, picker } from '../unit/damage.ts';

describe('bits that change', () => {
  let house: House;
  let api: House['api'];
  let stores: string[];
  let pool: string;
  let disk: string;
  const pick = picker('corruption');

  before(async function () {
    this.timeout(120_000);
    const schedules = { ...NO_SCHEDULES, scrub: '0 0 1 1 *', backup: '*/2 * * * * *' };
    house = await openHouse({ hosts: ['host-1'], sshd: true, controller: { schedules } });
    api = house.api;
    stores = [await house.addStore('near'), house.sshd.path];
    await house.addSftp('far');
    pool = (await house.addPool('fast'))(1);
    disk = await makeDisk(join(house.files, 'disk.raw'), 40 * MiB, 'corruption');
    await done(house.importFile('disk.raw', { name: 'base', format: 'raw', backupStorages: ['near', 'far'] }));
  });
  after(() => house?.[Symbol.asyncDispose]());

  const base = (): Promise<Image> => api.getImage({ params: { ref: 'base' } });
  const statuses = async () => {
    const [near, far] = await Promise.all(['near', 'far'].map(ref => api.getBackupStorage({ params: { ref } })));
    const { replicas } = await base();
    return [near, far].map(store => replicas.find(replica => replica.backupStorageId === store!.id)!.status);
  };
  const inStore = async (store: string, name: string) => join(store, 'images', (await base()).id, name);
  const inCache = async (name: string) => join(pool, 'cache', (await base()).id, name);
  const clone = (name: string) => api.createVolumes({ body: { name, image: 'base', primaryStorage: 'fast' } }, WAIT);
  const shows = async (name: string) =>
    sameContent(house.volumeFile(pool, await api.getVolume({ params: { ref: name } })), { path: disk, format: 'raw' });
  const types = async () => (await api.listEvents({ query: { limit: 1000 } })).items.map(event => event.type);
  async function emptyCache(): Promise<void> {
    const volumes = (await api.listVolumes()).items.map(volume => volume.id);
    if (volumes.length > 0) await done(api.deleteVolumes({ body: { volumes } }, WAIT));
    await done(api.emptyTrash({ body: {} }, WAIT));
    if ((await api.listCache()).items.length > 0)
      await done(api.evictFromCache({ body: { image: 'base', primaryStorage: 'fast' } }, WAIT));
    assert.deepEqual([readdirSync(join(pool, 'cache')), readdirSync(join(pool, 'tmp'))], [[], []]);
  }
  /** Flips a bit in a file for as long as the result is not disposed of. */
  function rot(path: string, at: number): Disposable {
    const good = readFileSync(path);
    const { mode } = statSync(path);
    chmodSync(path, 0o644);
    writeFileSync(path, flipBit(good, at, pick(8)), { flag: 'r+' });
    return {
      [Symbol.dispose]: () => {
        writeFileSync(path, good);
        chmodSync(path, mode);
      },
    };
  }

  it('in a stored object are found, named, and got around by way of the other replica', async () => {
    const path = await inStore(stores[0]!, 'image.raw');
    using _rot = rot(path, 20 * MiB + 77);
    const operation = await done(clone('around'));
    await shows('around');
    const fill = operation.steps.find(step => step.name === 'fill the image cache')!.result as {
      faults: { code: string; detail: string }[];
    };
    assert.equal(fill.faults[0]!.code, 'DIGEST_MISMATCH');
    assert.match(fill.faults[0]!.detail, /part 1 of dir store:images\/.*image\.raw/);
    assert.deepEqual(await statuses(), ['damaged', 'ready']);
    const replica = (await base()).replicas.find(one => one.status === 'damaged')!;
    assert.match(replica.reason!, /DIGEST_MISMATCH: .*part 1/);
    assert.ok((await types()).includes('replica.damaged'));
    assert.match((await ask(house.cistern.controller, 'GET', '/metrics')).text, /cistern_controller_damaged\{kind="replica"\} 1/);
    // it is not asked again while another one is sound
    await emptyCache();
    const next = await done(clone('next'));
    assert.deepEqual((next.steps.find(step => step.name === 'fill the image cache')!.result as { faults: unknown[] }).faults, []);
    assert.ok(existsSync(path), 'nobody removes it');
    await emptyCache();
  });

  it('in a replica that was put right are forgiven once it was verified', async () => {
    assert.deepEqual(await statuses(), ['damaged', 'ready']);
    await done(api.verifyImage({ params: { ref: 'base' } }, WAIT));
    assert.deepEqual(await statuses(), ['ready', 'ready']);
    assert.ok((await types()).includes('replica.repaired'));
  });

  it('in all replicas, objects and manifests, leave nothing in the cache and say where: 12 places', async () => {
    for (let i = 0; i < 6; i++) {
      const name = i % 2 === 0 ? 'image.raw' : 'manifest.json';
      const paths = await Promise.all(stores.map(store => inStore(store, name)));
      // a MiB of data stands at each 4 MiB; what lies between is not there, and so is not read
      const at = name === 'image.raw' ? 4 * MiB * pick(10) + 4096 + pick(MiB - 4096) : (readFileSync(paths[0]!).indexOf('"digest"') + 12 + pick(60)); // prettier-ignore
      using _one = rot(paths[0]!, at);
      using _two = rot(paths[1]!, at);
      const operation = await clone(`none-${i}`);
      assert.equal(operation.state, 'failed', `round ${i}, ${name} at ${at}`);
      assert.match(operation.error!.code, name === 'image.raw' ? /DIGEST_MISMATCH/ : /MANIFEST_INVALID/);
      assert.equal(operation.error!.replicas!.length, 2);
      assert.match(operation.error!.detail, name === 'image.raw' ? /part \d of dir store.*part \d of sftp/s : /manifest\.json/);
      assert.deepEqual(await statuses(), ['damaged', 'damaged']);
      assert.deepEqual([readdirSync(join(pool, 'cache')), readdirSync(join(pool, 'tmp'))], [[], []]);
      assert.deepEqual((await api.listCache()).items, []);
    }
    // a replica that a download found whole is a sound one
    await done(clone('whole-again'));
    assert.equal((await statuses()).filter(status => status === 'ready').length, 1);
    await done(api.verifyImage({ params: { ref: 'base' } }, WAIT));
    assert.deepEqual(await statuses(), ['ready', 'ready']);
    await emptyCache();
  }).timeout(120_000);

  it('together with their manifest, as by a hand that knows how, are found by what the controller remembers', async () => {
    await done(house.importFile('disk.raw', { name: 'other', backupStorages: ['near'] }));
    const other = await api.getImage({ params: { ref: 'other' } });
    const from = join(stores[0]!, 'images', other.id);
    const { id } = await base();
    const manifest = readFileSync(join(from, 'manifest.json'), 'utf8').replaceAll(other.id, id).replace('"qcow2"', '"raw"'); // prettier-ignore
    const paths = [await inStore(stores[0]!, 'image.raw'), await inStore(stores[0]!, 'manifest.json')];
    const good = paths.map(path => readFileSync(path));
    copyFileSync(join(from, 'image.qcow2'), paths[0]!);
    writeFileSync(paths[1]!, manifest);
    await done(clone('true'));
    await shows('true');
    const { reason } = (await base()).replicas.find(one => one.status === 'damaged')!;
    assert.match(reason!, /DIGEST_MISMATCH: .*published with the digest/);
    paths.forEach((path, i) => writeFileSync(path, good[i]!));
    await done(api.verifyImage({ params: { ref: 'base' } }, WAIT));
  });

  it('in a cached image reach no new clone and no upload: it is fetched anew under the volumes that stand on it', async () => {
    const path = await inCache('image.raw');
    for (const use of ['clone', 'upload'] as const) {
      chmodSync(path, 0o644);
      writeFileSync(path, flipBit(readFileSync(path), 24 * MiB + 5000, 1), { flag: 'r+' });
      const operation =
        use === 'clone'
          ? await done(clone('after'))
          : await done(api.uploadVolume({ params: { ref: 'true' }, body: { name: 'copy', format: 'raw', backupStorages: ['near'] } }, WAIT)); // prettier-ignore
      assert.ok(operation.steps.some(step => step.name === 'fill the image cache again'));
      await shows('true');
    }
    await shows('after');
    const copy = await api.getImage({ params: { ref: 'copy' } });
    await sameContent({ path: join(stores[0]!, 'images', copy.id, 'image.raw'), format: 'raw' }, { path: disk, format: 'raw' });
    assert.equal((await types()).filter(type => type === 'cache.damaged').length, 2);
    assert.deepEqual((await api.listCache()).items.map(entry => [entry.status, entry.reason]), [['ready', null]]); // prettier-ignore
  }).timeout(90_000);

  it('in a cached image are found by verifying it, with the volumes named; adding it mends it', async () => {
    const path = await inCache('image.raw');
    const body = { image: 'base', primaryStorage: 'fast' };
    await done(api.verifyCache({ body }, WAIT));
    chmodSync(path, 0o644);
    // in a hole: a part of it was only zeros
    writeFileSync(path, flipBit(readFileSync(path), 34 * MiB, 4), { flag: 'r+' });
    const operation = await api.verifyCache({ body }, WAIT);
    assert.equal(operation.error?.code, 'CACHE_DAMAGED');
    assert.match(operation.error.detail, /part 2 .*volumes stand on it: (true|after)/);
    assert.match(operation.error.action, /image cache add/);
    const [entry] = (await api.listCache()).items;
    assert.equal(entry!.status, 'damaged');
    assert.match((await ask(house.cistern.controller, 'GET', '/metrics')).text, /cistern_controller_damaged\{kind="cache"\} 1/);
    await done(api.addToCache({ body }, WAIT));
    await done(api.verifyCache({ body }, WAIT));
    await shows('after');
    assert.equal((await api.listCache()).items[0]!.status, 'ready');
  }).timeout(90_000);

  it('in the journal of an agent cost it no more than a line; it starts, and says where that lies', async () => {
    const [agent] = house.cistern.agents;
    await agent!.stop();
    const file = join(house.cistern.folder, 'host-1/state/tasks.jsonl');
    const good = readFileSync(file);
    writeFileSync(file, Buffer.concat([flipBit(good, good.length >> 1, 2), Buffer.alloc(4096)]));
    await agent!.start();
    assert.ok(agent!.log.some(line => /task journal \(2 lines\) was set aside/.test(line)));
    await until('the host is back', async () => (await api.getHost({ params: { ref: 'host-1' } })).status === 'connected');
    await done(clone('later'));
    await shows('later');
  }).timeout(90_000);

  it('in the database keep the controller from starting, which a backup mends', async () => {
    const state = join(house.cistern.folder, 'controller/state');
    const backups = () => (existsSync(join(state, 'backups')) ? readdirSync(join(state, 'backups')).filter(name => !name.startsWith('.')).sort() : []); // prettier-ignore
    const before = backups().at(-1);
    await until('a backup made since', () => backups().at(-1) !== before);
    const { controller } = house.cistern;
    await controller.stop();
    const file = join(state, 'cistern.db');
    const bytes = readFileSync(file);
    writeFileSync(file, bytes.fill(0xff, 8192, 8200));
    await assert.rejects(controller.start(), /ended with 65:[^]*DATABASE_DAMAGED[^]*Backups/);
    for (const name of readdirSync(state)) if (name.startsWith('cistern.db')) rmSync(join(state, name));
    await assert.rejects(controller.start(), /DATABASE_DAMAGED/, 'no new, empty one is made');
    copyFileSync(join(state, 'backups', backups().at(-1)!), file);
    await controller.start();
    assert.equal((await base()).name, 'base');
    await assert.rejects(api.getImage({ params: { ref: 'nothing' } }), failsWith('NOT_FOUND'));
  }).timeout(90_000);
});
