import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFile, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { COMMANDS } from '../../shared/commands/index.ts';
import { handlers } from '../../agent/commands/index.ts';
import { newId } from '../../shared/id.ts';
import { assertShows, code, exec, type Host, makeDisk, MiB, ref, startHost } from './commands-host.ts';

type Store = Awaited<ReturnType<Host['store']>>;
type Pool = Awaited<ReturnType<Host['pool']>>;
interface Image {
  id: string;
  format: 'qcow2';
  digest: string;
}

describe('commands of pools, image caches and volumes', function () {
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

  /** The disk as an image on stores. */
  async function image(...stores: Store[]): Promise<Image> {
    const it = { id: newId(), format: 'qcow2' as const };
    const path = join(host.base, 'spool', newId());
    await copyFile(disk, path);
    const input = {
      image: it,
      source: { type: 'upload' as const, size: null },
      sourceFormat: null,
      expectedSha256: null,
      stores: stores.map(ref),
    };
    const { digest } = await host.run('image.import', input, { upload: { path, size: 8 * MiB, sha256: '0'.repeat(64) } });
    return { ...it, digest };
  }

  const fill = (it: Image, stores: Store[], into = pool, options = {}) =>
    host.run('cache.fill', { pool: ref(into), image: it, stores: stores.map(ref) }, options);

  /** Clones of a cached image; their paths. */
  async function clones(it: Image, count: number, into = pool): Promise<{ id: string; layerId: string; path: string }[]> {
    const volumes = Array.from({ length: count }, () => ({ id: newId(), layerId: newId() }));
    const backing = { imageId: it.id, format: it.format, virtualSize: 8 * MiB };
    assert.equal((await host.run('volume.create', { pool: ref(into), volumes, size: null, backing })).size, 8 * MiB);
    return volumes.map(volume => ({ ...volume, path: join(into.path, 'volumes', volume.id, `${volume.layerId}.qcow2`) }));
  }

  const tmp = (of = pool): Promise<string[]> => readdir(join(of.path, 'tmp'));

  /** Turns one bit of an image's object on a store. */
  async function damage(of: Store, id: string): Promise<void> {
    const path = join(of.path, 'images', id, 'image.qcow2');
    const bytes = await readFile(path);
    bytes[bytes.length - 1]! ^= 1;
    await rm(path);
    await writeFile(path, bytes);
  }

  it('there is a handler for every command and none besides', () => {
    assert.deepEqual(Object.keys(handlers).toSorted(), COMMANDS.map(command => command.kind).toSorted());
  });

  it('the main job: an image is cached, cloned, changed, uploaded flat, and comes back elsewhere with every byte', async () => {
    const first = await image(store);
    const filled = await fill(first, [store]);
    assert.deepEqual([filled.alreadyThere, filled.virtualSize], [false, 8 * MiB]);
    const [one, two] = await clones(first, 2);
    await exec('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 9 5M 64k', one!.path]);
    await exec('qemu-io', ['-f', 'raw', '-c', 'write -q -P 9 5M 64k', await copied()]);
    await exec('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', two!.path, disk]);

    const second = { id: newId(), format: 'qcow2' as const };
    const elsewhere = await host.store();
    const upload = {
      pool: ref(pool),
      volumeId: one!.id,
      layerId: one!.layerId,
      image: second,
      compress: false,
      stores: [ref(store), ref(elsewhere)],
    };
    const stages = new Set<string>();
    const published = await host.run('volume.upload', upload, { progress: stage => stages.add(stage) });
    assert.deepEqual([...stages], ['flatten', 'publish']);
    assert.equal(published.virtualSize, 8 * MiB);
    assert.equal(published.transfers.length, 2);
    for (const place of [store, elsewhere]) await assertShows(place, second, join(host.base, 'changed.raw'));

    const other = await host.pool();
    await fill({ ...second, digest: published.digest }, [elsewhere], other);
    const [back] = await clones({ ...second, digest: published.digest }, 1, other);
    await exec('qemu-img', ['compare', '-f', 'qcow2', '-F', 'qcow2', back!.path, one!.path]);
    assert.deepEqual([await tmp(), await tmp(other)], [[], []]);
  });

  async function copied(): Promise<string> {
    await copyFile(disk, join(host.base, 'changed.raw'));
    return join(host.base, 'changed.raw');
  }

  describe('cache.fill', () => {
    it('downloads once however many ask at the same time, and all see it move', async () => {
      const it = await image(store);
      const seen = new Set<number>();
      const asked = Array.from({ length: 8 }, (_, i) => fill(it, [store], pool, { progress: () => seen.add(i) }));
      const answers = await Promise.all(asked);
      assert.equal(answers.filter(answer => !answer.alreadyThere).length, 1);
      assert.equal(seen.size, 8);
      assert.equal((await fill(it, [store])).alreadyThere, true);
      assert.deepEqual(await tmp(), []);
    });

    it('goes on to the next replica where one is damaged or away', async () => {
      const [away, good] = [await host.store(), await host.store()];
      const it = await image(store, away, good);
      await damage(store, it.id);
      await rm(away.path, { recursive: true });
      await fill(it, [store, away, good]);
      const [clone] = await clones(it, 1);
      await exec('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', clone!.path, disk]);
    });

    it('tells of every replica where none is good, and caches nothing', async () => {
      const [empty] = [await host.store()];
      const it = await image(store);
      await damage(store, it.id);
      await assert.rejects(fill(it, [store]), code('DIGEST_MISMATCH'));
      await assert.rejects(fill(it, [empty, store]), (error: Error) => {
        assert.match(error.message, new RegExp(`${empty.id}: OBJECT_MISSING.*${store.id}: DIGEST_MISMATCH`, 's'));
        return code('DIGEST_MISMATCH')(error);
      });
      assert.deepEqual([await tmp(), await readdir(join(pool.path, 'cache'))], [[], []]);
    });

    it('refuses a replica of another format than the image has', async () => {
      const it = await image(store);
      await assert.rejects(
        host.run('cache.fill', { pool: ref(pool), image: { ...it, format: 'raw' }, stores: [ref(store)] }),
        code('MANIFEST_INVALID'),
      );
    });

    it('cancelled, leaves nothing; one that waited takes over', async () => {
      const it = await image(store);
      const abort = new AbortController();
      const leader = fill(it, [store], pool, { signal: abort.signal });
      const waiter = fill(it, [store]);
      while ((await tmp()).length === 0); // until its first file is there; its threads take longer to start
      abort.abort();
      await assert.rejects(leader, (error: Error) => error.name === 'AbortError' || code('CANCELLED')(error));
      assert.equal((await waiter).alreadyThere, false);
      assert.deepEqual(await tmp(), []);
      assert.deepEqual(await readdir(join(pool.path, 'cache')), [it.id]);
    });

    it('a waiter that is cancelled stops waiting and leaves the download alone', async () => {
      const it = await image(store);
      const abort = new AbortController();
      const leader = fill(it, [store]);
      const waiter = fill(it, [store], pool, { signal: abort.signal, progress: () => abort.abort() });
      await assert.rejects(waiter, (error: Error) => error.name === 'AbortError' || code('CANCELLED')(error));
      assert.equal((await leader).alreadyThere, false);
    });

    it('evicted, is gone until it is filled again; never while a volume stands on it', async () => {
      const it = await image(store);
      await fill(it, [store]);
      const [clone] = await clones(it, 1);
      await assert.rejects(host.run('cache.evict', { pool: ref(pool), imageId: it.id }), code('IN_USE'));
      await host.run('volume.delete', { pool: ref(pool), volumeIds: [clone!.id] });
      await host.run('pool.purge', { pool: ref(pool), volumeIds: [], before: new Date(Date.now() + 1000).toISOString() });
      assert.ok((await host.run('cache.evict', { pool: ref(pool), imageId: it.id })).freed > 0);
      assert.equal((await fill(it, [store])).alreadyThere, false);
    });
  });

  describe('volumes', () => {
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

  describe('pools and stores', () => {
    it('pool.connect names every wrong setting; a type that is not known is told with those that are', async () => {
      const wrong = { id: newId(), type: 'local', config: { path: 'not/absolute', colour: 'blue' } };
      await assert.rejects(host.run('pool.connect', { pool: wrong, initialize: true }), (error: Error) => {
        assert.match(error.message, /colour[^]*path|path[^]*colour/);
        return code('POOL_CONFIG')(error);
      });
      await assert.rejects(
        host.run('pool.connect', { pool: { ...wrong, type: 'floppy' }, initialize: true }),
        code('DRIVER_UNKNOWN'),
      );
    });

    it('pool.disconnect leaves the files; with forget the folder is empty; both may be asked for twice', async () => {
      await host.run('pool.disconnect', { pool: ref(pool), forget: false });
      await host.run('pool.disconnect', { pool: ref(pool), forget: false });
      assert.ok((await readdir(pool.path)).includes('pool.json'));
      const volumes = [{ id: newId(), layerId: newId() }];
      await host.run('volume.create', { pool: ref(pool), volumes, size: MiB, backing: null });
      await assert.rejects(host.run('pool.disconnect', { pool: ref(pool), forget: true }), code('IN_USE'));
      await host.run('volume.delete', { pool: ref(pool), volumeIds: [volumes[0]!.id] });
      await host.run('pool.disconnect', { pool: ref(pool), forget: true });
      assert.deepEqual(await readdir(pool.path), []);
      await host.run('pool.disconnect', { pool: ref(pool), forget: true });
      await assert.rejects(host.run('pool.usage', { pool: ref(pool) }), code('POOL_IDENTITY'));
    });

    it('pool.usage counts what the cache and the volumes take', async () => {
      const it = await image(store);
      await fill(it, [store]);
      await clones(it, 2);
      const { capacity, cache, volumes, trash } = await host.run('pool.usage', { pool: ref(pool) });
      assert.ok(capacity.available <= capacity.total);
      assert.deepEqual([cache.length, volumes.length, trash.length], [1, 2, 0]);
      for (const entry of [...cache, ...volumes]) assert.ok(entry.allocated > 0);
    });

    it('store.connect proves that the store can be used, and tells its room', async () => {
      const { capacity } = await host.run('store.connect', { store: ref(store) });
      assert.ok(capacity !== null && capacity.total > 0);
      assert.deepEqual(await readdir(store.path), []);
      const gone = { ...ref(store), config: { path: join(host.base, 'no-such-folder') } };
      await assert.rejects(host.run('store.connect', { store: gone }), code('STORE_CONFIG'));
    });

    it('image.remove removes one image, and may be asked for twice', async () => {
      const [one, two] = [await image(store), await image(store)];
      for (let i = 0; i < 2; i++) await host.run('image.remove', { store: ref(store), imageId: one.id });
      assert.deepEqual(await readdir(join(store.path, 'images')), [two.id]);
    });

    it('a store that fills up leaves nothing of the image', async () => {
      if (process.getuid?.() !== 0) return void console.warn('not root: a store that is full is not tried');
      const small = await host.store();
      await exec('mount', ['-t', 'tmpfs', '-o', 'size=256k', '--', 'none', small.path]);
      try {
        await assert.rejects(image(store, small), code('STORE_FULL'));
        assert.deepEqual(await readdir(join(store.path, 'images')), []);
        assert.deepEqual(await readdir(join(small.path, 'images')), []);
      } finally {
        await exec('umount', ['--', small.path]);
      }
    });
  });
});
