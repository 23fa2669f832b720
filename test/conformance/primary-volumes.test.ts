import assert from 'node:assert/strict';
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { compare, info } from '../../agent/host/qemu-img.ts';
import { newId } from '../../shared/id.ts';
import { cacheImage, code, fill, make, MiB, onEveryTarget, openIn, volumes } from './primary-steps.ts';
import { exec, newPool, signal, tree } from './primary-targets.ts';

onEveryTarget('image cache', it => {
  it('an image shows whole and read-only, and stays when it arrives again', async place => {
    const { pool } = await newPool(place);
    const id = await cacheImage(pool, place);
    const found = await pool.cached(id, 'qcow2');
    const path = pool.cacheName(id, 'qcow2');
    assert.deepEqual(await readFile(path), await readFile(join(place.outside, `${id}.qcow2`)));
    assert.equal((await stat(path)).mode & 0o777, 0o444);
    assert.equal(found?.virtualSize, 8 * MiB);
    assert.equal(found?.size, (await stat(path)).size);
    const { ino } = await stat(path);
    await fill(pool, id, join(place.outside, `${id}.qcow2`));
    assert.equal((await stat(path)).ino, ino);
    assert.equal(await pool.cached(id, 'raw'), undefined);
    assert.deepEqual(await readdir(join(place.root, 'tmp')), []);
  });

  it('shows nothing before it is published, and an aborted one leaves nothing', async place => {
    const { pool } = await newPool(place);
    const id = newId();
    const image = {
      id,
      format: 'qcow2' as const,
      size: MiB,
      virtualSize: MiB,
      digest: '0'.repeat(64),
      partSize: MiB,
      parts: ['zero'],
    };
    const sink = await pool.cacheSink(image);
    assert.equal(await pool.cached(id, 'qcow2'), undefined);
    await sink.abort();
    assert.deepEqual(await readdir(join(place.root, 'tmp')), []);
    assert.deepEqual(await readdir(join(place.root, 'cache')), []);
  });

  it('is evicted only when nothing stands on it, not even in the trash', async place => {
    const { pool } = await newPool(place);
    const id = await cacheImage(pool, place);
    const [volume] = volumes(1);
    await make(pool, [volume!], 8 * MiB, id);
    await assert.rejects(pool.evict(id), code('IN_USE'));
    await pool.trash([volume!.id], signal);
    await assert.rejects(pool.evict(id), code('IN_USE'));
    await pool.purge([], new Date(Date.now() + 1000), signal);
    assert.ok((await pool.evict(id)).freed >= 2 * MiB);
    assert.deepEqual(await pool.evict(id), { freed: 0 });
    assert.equal(await pool.cached(id, 'qcow2'), undefined);
    assert.deepEqual(await readdir(join(place.root, 'tmp')), []);
  });
});

onEveryTarget('volumes', it => {
  it('what images and volumes are said to take when they are made is what a measurement finds', async place => {
    const { pool } = await newPool(place);
    const id = await cacheImage(pool, place);
    const [first, grown] = volumes(2);
    const made = await make(pool, [first!], 16 * MiB, id);
    await make(pool, [grown!], 16 * MiB, id);
    const resized = await pool.resizeVolume(grown!.id, grown!.layerId, 64 * MiB, signal);
    const { cache, volumes: found } = await pool.usage(signal);
    const image = await pool.cached(id, 'qcow2');
    assert.deepEqual(cache, [{ imageId: id, allocated: image!.allocated }]);
    const said = new Map([[first!.id, made.allocated], [grown!.id, resized.allocated]]); // prettier-ignore
    assert.deepEqual(new Map(found.map(volume => [volume.id, volume.allocated])), said);
  });

  it('linked clones show the bytes of their image through a relative name, and are sound', async place => {
    const { pool } = await newPool(place);
    const id = await cacheImage(pool, place);
    const specs = volumes(3);
    const { allocated } = await make(pool, specs, 16 * MiB, id);
    assert.ok(allocated > 0 && allocated < MiB);
    for (const spec of specs) {
      await using disk = await pool.volumeFile(spec.id, spec.layerId);
      const { virtualSize, backing, clusterSize } = await info(disk);
      assert.deepEqual(backing, { name: `../../cache/${id}/image.qcow2`, format: 'qcow2' });
      assert.deepEqual([virtualSize, clusterSize], [16 * MiB, 131072]);
      await exec('qemu-img', ['check', '-q', '-f', 'qcow2', disk.path]);
      assert.ok(await compare(disk, { path: join(place.outside, `${id}.qcow2`), format: 'qcow2' }));
    }
    const [first] = specs;
    await using disk = await pool.volumeFile(first!.id, first!.layerId);
    await exec('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 7 1M 4k', disk.path]);
    await exec('qemu-io', ['-f', 'qcow2', '-c', 'read -P 7 1M 4k', '-c', 'read -P 0xa5 1028k 4k', disk.path]);
  });

  it('are empty when they stand on nothing', async place => {
    const { pool } = await newPool(place);
    const [spec] = volumes(1);
    await make(pool, [spec!], 64 * MiB);
    await using disk = await pool.volumeFile(spec!.id, spec!.layerId);
    assert.equal((await info(disk)).backing, null);
    const { stdout } = await exec('qemu-io', ['-f', 'qcow2', '-c', 'read -P 0 0 64M', disk.path]);
    assert.doesNotMatch(stdout, /Pattern verification failed/);
  });

  it('asked for again are left as they are; an id that is taken by another one is refused with all of its batch', async place => {
    const { pool } = await newPool(place);
    const specs = volumes(2);
    await make(pool, specs, 8 * MiB);
    const before = await tree(place.root);
    await make(pool, specs, 8 * MiB);
    assert.deepEqual(await tree(place.root), before);
    const more = volumes(1);
    await assert.rejects(make(pool, [...more, specs[0]!], 16 * MiB), code('WRONG_STATE'));
    assert.deepEqual(await tree(place.root), before);
    await make(pool, [...more, ...specs], 8 * MiB);
    assert.equal((await pool.usage(signal)).volumes.length, 3);
  });

  it('are refused on an image that is not cached, below its size, and under names that are no ids', async place => {
    const { pool } = await newPool(place);
    const before = await tree(place.root);
    await assert.rejects(make(pool, volumes(1), 8 * MiB, newId()), code('NOT_FOUND'));
    await assert.rejects(make(pool, [{ id: '../../outside', layerId: newId() }], MiB), code('BAD_REQUEST'));
    await assert.rejects(make(pool, [{ id: newId(), layerId: '../x' }], MiB), code('BAD_REQUEST'));
    await assert.rejects(pool.volumeFile(newId(), newId()), code('VOLUME_MISSING'));
    assert.deepEqual(await tree(place.root), before);
    const id = await cacheImage(pool, place);
    await assert.rejects(make(pool, volumes(1), 4 * MiB, id), code('BAD_REQUEST'));
    assert.deepEqual(await readdir(join(place.root, 'volumes')), []);
  });

  it('two hundred come at once; a cancel in the middle leaves none', async place => {
    const { pool } = await newPool(place);
    const told: number[] = [];
    await pool.createVolumes(newId(), volumes(200), MiB, null, signal, done => told.push(done));
    assert.equal(told.at(-1), 200);
    const before = await tree(place.root);
    const abort = new AbortController();
    const cancelled = pool.createVolumes(newId(), volumes(200), MiB, null, abort.signal, done => done === 50 && abort.abort());
    await assert.rejects(cancelled, code('CANCELLED'));
    assert.deepEqual(await tree(place.root), before);
  });

  it('grow, never shrink, and not while a program has them open', async place => {
    const { pool } = await newPool(place);
    const [spec] = volumes(1);
    await make(pool, [spec!], 8 * MiB);
    const { id, layerId } = spec!;
    await using disk = await pool.volumeFile(id, layerId);
    assert.equal((await pool.resizeVolume(id, layerId, 16 * MiB, signal)).size, 16 * MiB);
    assert.equal((await pool.resizeVolume(id, layerId, 16 * MiB, signal)).size, 16 * MiB);
    assert.equal((await info(disk)).virtualSize, 16 * MiB);
    await assert.rejects(pool.resizeVolume(id, layerId, 8 * MiB, signal), code('BAD_REQUEST'));
    await using _vm = await openIn(disk.path);
    await assert.rejects(pool.resizeVolume(id, layerId, 32 * MiB, signal), code('VOLUME_IN_USE'));
    assert.equal((await info(disk)).virtualSize, 16 * MiB);
  });
});
