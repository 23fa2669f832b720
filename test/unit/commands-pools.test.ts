import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { COMMANDS } from '../../shared/commands/index.ts';
import { handlers } from '../../agent/commands/index.ts';
import { newId } from '../../shared/id.ts';
import { code, exec, type Host, makeDisk, MiB, ref, startHost } from './commands-host.ts';
import { cloneImage, fillCache, type Image, importDisk, type Pool, type Store } from './commands-steps.ts';

describe('commands of pools and stores', function () {
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

  it('there is a handler for every command and none besides', () => {
    assert.deepEqual(Object.keys(handlers).toSorted(), COMMANDS.map(command => command.kind).toSorted());
  });

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
