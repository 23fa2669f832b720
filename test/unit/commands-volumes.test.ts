import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { exec } from '../conformance/primary-targets.ts';
import { newId } from '../../shared/id.ts';
import { assertShows, code, type Host, makeDisk, MiB, ref, startHost } from './commands-host.ts';
import { cloneImage, fillCache, type Image, importDisk, type Pool, type Store } from './commands-steps.ts';

describe('commands of volumes', function () {
  this.timeout(60_000);
  let host: Host;
  let disk: string;
  let store: Store;
  let pool: Pool;

  before(async () => {
    host = await startHost();
    disk = await makeDisk(join(host.base, 'disk.raw'));
  });
  beforeEach(async () => {
    store = await host.store();
    pool = await host.pool();
  });
  after(() => host[Symbol.asyncDispose]());

  const image = (...stores: Store[]) => importDisk(host, disk, ...stores);
  const fill = (it: Image, stores: Store[], into = pool, options = {}) => fillCache(host, into, it, stores, options);
  const clones = (it: Image, count: number, into = pool) => cloneImage(host, into, it, count);

  const size = 8 * MiB;

  it('are made empty in whole sectors, and need a size and ids of their own', async () => {
    const volumes = [{ id: newId(), layerId: newId() }];
    assert.equal((await host.run('volume.create', { pool: ref(pool), volumes, size: 1000, backing: null })).size, 1024);
    assert.equal((await host.run('volume.create', { pool: ref(pool), volumes, size: 1000, backing: null })).size, 1024);
    await assert.rejects(
      host.run('volume.create', { pool: ref(pool), volumes: [{ id: newId(), layerId: newId() }], size: null, backing: null }),
      code('BAD_REQUEST'),
    );
    const twice = [...volumes, ...volumes];
    await assert.rejects(
      host.run('volume.create', { pool: ref(pool), volumes: twice, size, backing: null }),
      code('BAD_REQUEST'),
    );
  });

  it('are copied into another pool, and taken away only where nobody has written to them since', async () => {
    const other = await host.pool();
    const [volume] = [{ id: newId(), layerId: newId() }];
    await host.run('volume.create', { pool: ref(pool), volumes: [volume], size, backing: null });
    const { version } = await host.run('volume.copy', { from: ref(pool), to: ref(other), volume, backing: null });
    const take = { pool: ref(pool), volumeIds: [volume.id], unchanged: { layerId: volume.layerId, version } };
    const layer = join(pool.path, 'volumes', volume.id, `${volume.layerId}.qcow2`);
    await exec('qemu-io', ['-f', 'qcow2', '-c', 'write -q 0 4k', layer]);
    await assert.rejects(host.run('volume.delete', take), code('VOLUME_IN_USE'));
    assert.deepEqual(await readdir(join(pool.path, 'trash')), []);
    const again = await host.run('volume.copy', { from: ref(pool), to: ref(other), volume, backing: null });
    take.unchanged.version = again.version;
    assert.deepEqual(await host.run('volume.delete', take), { trashed: [volume.id] });
    assert.deepEqual(await host.run('volume.delete', take), { trashed: [volume.id] });
  });

  it('grow, and the new size is what an upload of them has', async () => {
    const [volume] = [{ id: newId(), layerId: newId() }];
    await host.run('volume.create', { pool: ref(pool), volumes: [volume], size, backing: null });
    const resize = { pool: ref(pool), volumeId: volume.id, layerId: volume.layerId, size: 2 * size };
    assert.equal((await host.run('volume.resize', resize)).size, 2 * size);
    const it = { id: newId(), format: 'raw' as const };
    const { pool: _, ...names } = {
      pool,
      volumeId: volume.id,
      layerId: volume.layerId,
      image: it,
      compress: true,
      stores: [ref(store)],
    };
    assert.equal((await host.run('volume.upload', { pool: ref(pool), ...names })).virtualSize, 2 * size);
  });

  it('compressed on request, take less room on the store and hold the same', async () => {
    const it = await image(store);
    await fill(it, [store]);
    const [clone] = await clones(it, 1);
    const upload = async (compress: boolean) => {
      const flat = { id: newId(), format: 'qcow2' as const };
      const { size: bytes } = await host.run('volume.upload', {
        pool: ref(pool),
        volumeId: clone!.id,
        layerId: clone!.layerId,
        image: flat,
        compress,
        stores: [ref(store)],
      });
      await assertShows(store, flat, disk);
      return bytes;
    };
    const [plain, packed] = [await upload(false), await upload(true)];
    assert.ok(packed < plain, `${packed} bytes compressed, ${plain} plain`);
  });

  it('are not uploaded, grown or deleted while a program has them open', async () => {
    const it = await image(store);
    await fill(it, [store]);
    const [clone] = await clones(it, 1);
    const vm = spawn('qemu-io', ['-f', 'qcow2', clone!.path], { stdio: ['pipe', 'pipe', 'inherit'] });
    vm.stdin.write('write 0 4k\n');
    await once(vm.stdout, 'data');
    const { id: volumeId, layerId } = clone!;
    const flat = { id: newId(), format: 'qcow2' as const };
    try {
      const upload = { pool: ref(pool), volumeId, layerId, image: flat, compress: false, stores: [ref(store)] };
      await assert.rejects(host.run('volume.upload', upload), code('VOLUME_IN_USE'));
      await assert.rejects(
        host.run('volume.resize', { pool: ref(pool), volumeId, layerId, size: 2 * size }),
        code('VOLUME_IN_USE'),
      );
      await assert.rejects(host.run('volume.delete', { pool: ref(pool), volumeIds: [volumeId] }), code('VOLUME_IN_USE'));
    } finally {
      const ended = once(vm, 'exit');
      vm.stdin.end('quit\n');
      await ended;
    }
    assert.deepEqual(await readdir(join(store.path, 'images')), [it.id]);
    await host.run('volume.delete', { pool: ref(pool), volumeIds: [volumeId] });
  });

  it('that are not there cannot be uploaded or grown', async () => {
    const gone = { pool: ref(pool), volumeId: newId(), layerId: newId() };
    const flat = { id: newId(), format: 'qcow2' as const };
    await assert.rejects(host.run('volume.resize', { ...gone, size }), code('VOLUME_MISSING'));
    await assert.rejects(
      host.run('volume.upload', { ...gone, image: flat, compress: false, stores: [ref(store)] }),
      code('VOLUME_MISSING'),
    );
  });

  it('an upload that is cancelled leaves no image', async () => {
    const volumes = [{ id: newId(), layerId: newId() }];
    await host.run('volume.create', { pool: ref(pool), volumes, size, backing: null });
    for (const stage of ['flatten', 'publish']) {
      const abort = new AbortController();
      const image = { id: newId(), format: 'qcow2' as const };
      const upload = {
        pool: ref(pool),
        volumeId: volumes[0]!.id,
        layerId: volumes[0]!.layerId,
        image,
        compress: false,
        stores: [ref(store)],
      };
      const cancelled = host.run('volume.upload', upload, {
        signal: abort.signal,
        progress: at => at === stage && abort.abort(),
      });
      await assert.rejects(cancelled, (error: Error) => error.name === 'AbortError' || code('CANCELLED')(error));
    }
    assert.deepEqual(await readdir(join(store.path, 'images')).catch(() => []), []);
  });
});
