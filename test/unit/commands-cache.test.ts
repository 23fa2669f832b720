import assert from 'node:assert/strict';
import { copyFile, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { newId } from '../../shared/id.ts';
import { assertShows, code, exec, type Host, makeDisk, MiB, ref, startHost } from './commands-host.ts';
import { cloneImage, fillCache, type Image, importDisk, type Pool, type Store } from './commands-steps.ts';

describe('commands of image caches', function () {
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
  const tmp = (of = pool): Promise<string[]> => readdir(join(of.path, 'tmp'));

  /** Turns one bit of an image's object on a store. */
  async function damage(of: Store, id: string): Promise<void> {
    const path = join(of.path, 'images', id, 'image.qcow2');
    const bytes = await readFile(path);
    bytes[bytes.length - 1]! ^= 1;
    await rm(path);
    await writeFile(path, bytes);
  }

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
