import assert from 'node:assert/strict';
import { createReadStream, existsSync, statSync } from 'node:fs';
import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import type { Image, Volume } from '../../shared/model.ts';
import { done, WAIT } from '../servers/cistern.ts';
import { failsWith, filesBelow, type House, makeDisk, MiB, openHouse, sameContent, sha256 } from './house.ts';

const SIZE = 24 * MiB;

describe('the main job: image in, cached once, linked clones out, volume back to the warehouse', () => {
  let house: House;
  let api: House['api'];
  let dirStore: string;
  let pool: string;
  let otherPool: string;
  let disk: string;

  before(async function () {
    this.timeout(60_000);
    house = await openHouse({ hosts: ['host-1'], sshd: true });
    api = house.api;
    dirStore = await house.addStore('depot');
    await house.addSftp('vault');
    pool = (await house.addPool('fast'))(1);
    otherPool = (await house.addPool('slow'))(1);
    disk = await makeDisk(join(house.files, 'disk.raw'), SIZE, 'the main job');
    const served = (name: string) => join(house.files, name);
    await execa('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', '-c', disk, served('packed.qcow2')]);
    await execa('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', disk, served('plain.qcow2')]);
    await execa('gzip', ['-1', '-k', '--', served('plain.qcow2')]);
  });
  after(() => house?.[Symbol.asyncDispose]());

  const image = (ref: string): Promise<Image> => api.getImage({ params: { ref } });
  const volume = (ref: string): Promise<Volume> => api.getVolume({ params: { ref } });
  const object = (root: string, { id, format }: Image) => ({ path: join(root, 'images', id, `image.${format}`), format });
  const write = (file: string, byte: string, at: string) =>
    execa('qemu-io', ['-f', 'qcow2', '-c', `write -P ${byte} ${at} 64k`, file]);

  it('imports a qcow2 from a URL with its checksum, onto a folder and an SSH server at once', async () => {
    const operation = await house.importFile('packed.qcow2', {
      name: 'base',
      sha256: sha256(join(house.files, 'packed.qcow2')),
      backupStorages: ['depot', 'vault'],
    });
    assert.equal(operation.state, 'succeeded', operation.error?.detail);
    assert.equal((operation.output!.transfers as unknown[]).length, 2);
    const base = await image('base');
    assert.equal(base.virtualSize, SIZE);
    assert.deepEqual(base.replicas.map(replica => replica.status), ['ready', 'ready']); // prettier-ignore
    for (const root of [dirStore, house.sshd.path]) {
      assert.equal(statSync(object(root, base).path).size, base.size);
      assert.ok(existsSync(join(root, 'images', base.id, 'manifest.json')));
      await sameContent(object(root, base), { path: disk, format: 'raw' });
    }
  });

  it('imports raw and compressed images, and keeps them raw where that is asked', async () => {
    await done(house.importFile('disk.raw', { name: 'from-raw', format: 'raw', backupStorages: ['depot'] }));
    await done(house.importFile('plain.qcow2.gz', { name: 'from-gz', backupStorages: ['depot'] }));
    for (const name of ['from-raw', 'from-gz'])
      await sameContent(object(dirStore, await image(name)), { path: disk, format: 'raw' });
    assert.equal((await image('from-raw')).format, 'raw');
  });

  it('takes an image that is uploaded through the controller', async () => {
    const file = join(house.files, 'plain.qcow2');
    const { size } = statSync(file);
    const started = await api.importImage({
      body: { name: 'uploaded', source: { type: 'upload', size }, backupStorages: ['depot'] },
    });
    const sent = await api.uploadImage({ params: { ref: 'uploaded' } }, { stream: createReadStream(file), length: size });
    assert.equal(sent.received, size);
    assert.equal((await house.ended(started.id)).state, 'succeeded');
    await sameContent(object(dirStore, await image('uploaded')), { path: disk, format: 'raw' });
  });

  it('takes an object that lies on a backup storage already, and leaves it there', async () => {
    const there = join(house.sshd.path, 'lying-there.qcow2');
    await copyFile(join(house.files, 'plain.qcow2'), there);
    const source = { type: 'object' as const, backupStorage: 'vault', path: 'lying-there.qcow2' };
    await done(api.importImage({ body: { name: 'taken', source, backupStorages: ['depot'] } }, WAIT));
    await sameContent(object(dirStore, await image('taken')), { path: disk, format: 'raw' });
    assert.ok(existsSync(there));
  });

  it('prefetches the image into the cache once, read-only and whole', async () => {
    const first = await done(api.addToCache({ body: { image: 'base', primaryStorage: 'fast' } }, WAIT));
    assert.ok(first.steps.some(step => step.name.startsWith('fill the image cache')));
    const second = await done(api.addToCache({ body: { image: 'base', primaryStorage: 'fast' } }, WAIT));
    assert.ok(!second.steps.some(step => step.name.startsWith('fill the image cache')), 'it was fetched again');
    const { id } = await image('base');
    const cached = join(pool, 'cache', id, 'image.qcow2');
    assert.equal(statSync(cached).mode & 0o777, 0o444);
    await sameContent({ path: cached, format: 'qcow2' }, { path: disk, format: 'raw' });
    const { items } = await api.listCache();
    assert.deepEqual(items.map(entry => [entry.imageId, entry.status, entry.volumes]), [[id, 'ready', 0]]); // prettier-ignore
  });

  it('makes linked clones that show the bytes of the image', async () => {
    const made = await done(api.createVolumes({ body: { name: 'vm', image: 'base', count: 5, primaryStorage: 'fast' } }, WAIT));
    assert.equal((made.output!.volumes as unknown[]).length, 5);
    for (const name of ['vm-1', 'vm-5']) {
      const clone = await volume(name);
      assert.equal(clone.kind, 'root');
      assert.ok(clone.allocated! < 2 * MiB, `a fresh clone takes ${clone.allocated} bytes`);
      await sameContent(house.volumeFile(pool, clone), { path: disk, format: 'raw' });
    }
    const { stdout } = await execa('qemu-img', [
      'info',
      '--output=json',
      '-f',
      'qcow2',
      house.volumeFile(pool, await volume('vm-1')).path,
    ]);
    const info = JSON.parse(stdout) as { 'backing-filename': string };
    assert.ok(!info['backing-filename'].startsWith('/'), `the backing name is absolute: ${info['backing-filename']}`);
  });

  it('uploads what a guest has written as templates: compressed, and raw', async () => {
    const { path } = house.volumeFile(pool, await volume('vm-1'));
    await write(path, '0x5a', '5M');
    const upload = (name: string, more: object) =>
      done(api.uploadVolume({ params: { ref: 'vm-1' }, body: { name, backupStorages: ['depot'], ...more } }, WAIT));
    await upload('golden', { compress: true });
    await upload('golden-raw', { format: 'raw', media: 'data', backupStorages: ['depot', 'vault'] });
    for (const name of ['golden', 'golden-raw']) {
      const template = await image(name);
      await sameContent(object(dirStore, template), { path, format: 'qcow2' });
      assert.equal(template.media, name === 'golden' ? 'root' : 'data');
    }
    const { stdout } = await execa('qemu-img', ['info', '--output=json', object(dirStore, await image('golden')).path]);
    assert.equal((JSON.parse(stdout) as { 'backing-filename'?: string })['backing-filename'], undefined);
    assert.ok((await image('golden')).size! < (await image('golden-raw')).size!);
  });

  it('refuses to compress a raw image', async () => {
    const body = { name: 'absurd', format: 'raw' as const, compress: true };
    await assert.rejects(api.uploadVolume({ params: { ref: 'vm-1' }, body }), failsWith('BAD_REQUEST', /compress/));
  });

  it('makes a data volume from the data template on a second pool', async () => {
    await done(api.createVolumes({ body: { name: 'data', image: 'golden-raw', primaryStorage: 'slow' } }, WAIT));
    const data = await volume('data');
    assert.equal(data.kind, 'data');
    await sameContent(house.volumeFile(otherPool, data), house.volumeFile(pool, await volume('vm-1')));
  });

  it('makes empty volumes and grows them; they never shrink', async () => {
    await done(api.createVolumes({ body: { name: 'empty', size: 10 * MiB, primaryStorage: 'slow' } }, WAIT));
    await done(api.resizeVolume({ params: { ref: 'empty' }, body: { size: 20 * MiB } }, WAIT));
    const grown = await volume('empty');
    assert.equal(grown.size, 20 * MiB);
    const { stdout } = await execa('qemu-img', ['info', '--output=json', house.volumeFile(otherPool, grown).path]);
    assert.equal((JSON.parse(stdout) as { 'virtual-size': number })['virtual-size'], 20 * MiB);
    await assert.rejects(
      api.resizeVolume({ params: { ref: 'empty' }, body: { size: 10 * MiB } }),
      failsWith('BAD_REQUEST', /only grow/),
    );
  });

  it('does not resize or delete a volume that a program has open', async () => {
    const { path } = house.volumeFile(otherPool, await volume('empty'));
    const guest = execa('qemu-io', ['-f', 'qcow2', path], { reject: false });
    try {
      guest.stdin.write('write 0 64k\n');
      await new Promise(resolve => guest.stdout.once('data', resolve));
      const resized = await api.resizeVolume({ params: { ref: 'empty' }, body: { size: 30 * MiB } }, WAIT);
      assert.equal(resized.error?.code, 'VOLUME_IN_USE');
      assert.equal((await volume('empty')).size, 20 * MiB);
      const deleted = await api.deleteVolume({ params: { ref: 'empty' } }, WAIT);
      assert.equal(deleted.error?.code, 'VOLUME_IN_USE');
      assert.equal((await volume('empty')).status, 'ready');
    } finally {
      guest.stdin.end('quit\n');
      await guest;
    }
  });

  it('deletes the image while clones live on: they keep their bytes', async () => {
    const { id } = await image('base');
    await done(api.deleteImage({ params: { ref: 'base' } }, WAIT));
    for (const root of [dirStore, house.sshd.path])
      assert.ok(!existsSync(join(root, 'images', id)), `the object is still in ${root}`);
    await assert.rejects(image('base'), failsWith('NOT_FOUND'));
    await sameContent(house.volumeFile(pool, await volume('vm-2')), { path: disk, format: 'raw' });
  });

  it('deletes volumes into the trash, where they hold the cached image until it is emptied', async () => {
    const cached = (await api.listCache({ query: { primaryStorage: 'fast' } })).items;
    assert.equal(cached[0]!.volumes, 5);
    const evict = () => api.evictFromCache({ body: { image: cached[0]!.imageId, primaryStorage: 'fast' } }, WAIT);
    await assert.rejects(evict(), failsWith('IN_USE', /vm-1/));
    await done(api.deleteVolumes({ body: { volumes: ['vm-1', 'vm-2', 'vm-3', 'vm-4', 'vm-5'] } }, WAIT));
    assert.equal((await api.listVolumes({ query: { primaryStorage: 'fast' } })).items.length, 0);
    assert.equal((await api.listTrash()).items.length, 5);
    assert.equal(filesBelow(join(pool, 'volumes')).length, 0);
    await assert.rejects(evict(), failsWith('IN_USE', /in the trash/));
    const emptied = await done(api.emptyTrash({ body: {} }, WAIT));
    assert.equal(emptied.output!.volumes, 5);
    assert.deepEqual(filesBelow(join(pool, 'trash')), []);
    assert.equal((await api.listTrash()).items.length, 0);
    await done(evict());
    assert.deepEqual(filesBelow(join(pool, 'cache')), []);
    await assert.rejects(evict(), failsWith('NOT_FOUND'));
  });

  it('gives everything back: no volume, no image, no storage, no file but those that were there before', async () => {
    const names = (await api.listVolumes()).items.map(one => one.name);
    await done(api.deleteVolumes({ body: { volumes: names } }, WAIT));
    for (const one of (await api.listImages()).items) await done(api.deleteImage({ params: { ref: one.id } }, WAIT));
    for (const ref of ['fast', 'slow']) await done(api.deletePrimaryStorage({ params: { ref } }, WAIT));
    for (const ref of ['depot', 'vault']) await done(api.deleteBackupStorage({ params: { ref } }, WAIT));
    for (const root of [pool, otherPool, dirStore]) assert.deepEqual(filesBelow(root), []);
    assert.deepEqual(filesBelow(house.sshd.path), ['lying-there.qcow2']);
    assert.deepEqual(filesBelow(join(house.cistern.folder, 'host-1/state/spool')), []);
  });
});
