import assert from 'node:assert/strict';
import { chmod, copyFile, cp, readdir, readFile, rename, rm, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CacheMeta, readMeta, toMeta } from '../../agent/primary/file-pool/meta.ts';
import { unsee } from '../../agent/primary/file-pool/stamp.ts';
import { CisternError, type ErrorCode } from '../../shared/errors.ts';
import { damage, flipBit, picker } from '../unit/damage.ts';
import { cacheImage, code, fill, make, MiB, onEveryTarget, volumes } from './primary-steps.ts';
import { connect, exec, newPool, signal } from './primary-targets.ts';

const named = (expected: ErrorCode, path: string) => (error: unknown) => {
  assert.ok(error instanceof CisternError && error.code === expected, String(error));
  assert.ok(error.message.includes(path), error.message);
  return true;
};

onEveryTarget('damage', it => {
  it('of one meta.json, at 60 places, stops nothing but what must know it: that names the file', async place => {
    const { pool } = await newPool(place);
    const image = await cacheImage(pool, place);
    const other = await cacheImage(pool, place);
    const specs = volumes(2);
    await make(pool, specs, 8 * MiB, image);
    const path = join(place.root, 'volumes', specs[0]!.id, 'meta.json');
    const good = await readFile(path);
    for (let seed = 0; seed < 60; seed++) {
      await writeFile(path, damage(good, seed).bytes);
      const { id, layerId } = specs[0]!;
      await assert.rejects(pool.resizeVolume(id, layerId, 8 * MiB, signal), named('IO_ERROR', path));
      assert.equal((await pool.usage(signal)).volumes.length, 2);
      await pool.resizeVolume(specs[1]!.id, specs[1]!.layerId, 8 * MiB, signal);
      await using disk = await pool.volumeFile(id, layerId);
      assert.equal(disk.path, join(place.root, 'volumes', id, `${layerId}.qcow2`));
      await assert.rejects(pool.evict(image), code('IN_USE'));
    }
    // what it stands on is told by its header all the same, so another image can go
    await pool.evict(other);
    assert.deepEqual(await pool.trash([specs[0]!.id], signal), [specs[0]!.id]);
    assert.equal((await pool.usage(signal)).trash.length, 1);
    assert.deepEqual(await pool.restore([specs[0]!.id]), [specs[0]!.id]);
    await pool.trash([specs[0]!.id], signal);
    assert.deepEqual((await pool.purge([specs[0]!.id], new Date(0), signal)).removed, [specs[0]!.id]);
  });

  it('of pool.json is not the pool, says so, and tells what to write into it', async place => {
    const { pool, id } = await newPool(place);
    const [spec] = volumes(1);
    await make(pool, [spec!], MiB);
    const path = join(place.root, 'pool.json');
    const good = await readFile(path);
    for (let seed = 0; seed < 60; seed++) {
      const bytes = seed < 30 ? damage(good, seed).bytes : flipBit(good, seed % good.length, seed % 7);
      await writeFile(path, bytes);
      const opened = await connect(place, id, true).then(
        () => undefined,
        (error: unknown) => error,
      );
      // a bit of its date or between its fields does no harm
      if (opened !== undefined) code('POOL_IDENTITY')(opened);
    }
    await writeFile(path, good.subarray(0, 20));
    await assert.rejects(pool.usage(signal), named('POOL_IDENTITY', path));
    const error = await connect(place, id, false).catch((reason: unknown) => reason as CisternError);
    const right = /into its pool\.json: (\{.*\})/.exec((error as CisternError).action!)![1]!;
    await writeFile(path, right);
    assert.equal((await (await connect(place, id, false)).usage(signal)).volumes.length, 1);
  });

  it('of what a cached image is described by makes no clone: each 7th byte of meta.json and parts.json', async place => {
    const { pool } = await newPool(place);
    const image = await cacheImage(pool, place);
    const folder = join(place.root, 'cache', image);
    for (const name of ['meta.json', 'parts.json']) {
      const path = join(folder, name);
      const good = await readFile(path);
      await chmod(path, 0o644);
      for (let at = 0; at < good.length - 1; at += 7) {
        await writeFile(path, flipBit(good, at, at % 6));
        await rm(join(folder, 'verified.json'), { force: true });
        const full = { signal, full: true };
        await assert.rejects(pool.verifyImage(image, 'qcow2', full), named('CACHE_DAMAGED', path));
        await assert.rejects(make(pool, volumes(1), 8 * MiB, image), named('CACHE_DAMAGED', path));
      }
      await writeFile(path, good);
    }
    await make(pool, volumes(1), 8 * MiB, image);
  });

  it('is noticed where another image lies in the place of a cached one, sound in itself', async place => {
    const { pool } = await newPool(place);
    const [image, other] = [await cacheImage(pool, place), await cacheImage(pool, place, 3)];
    const { digest } = (await pool.cached(image, 'qcow2'))!;
    const [folder, elsewhere] = [join(place.root, 'cache', image), join(place.root, 'cache', other)];
    const meta = (await readMeta(join(elsewhere, 'meta.json'), CacheMeta))!;
    await rm(folder, { recursive: true });
    await cp(elsewhere, folder, { recursive: true });
    await rm(join(folder, 'meta.json'), { force: true });
    await writeFile(join(folder, 'meta.json'), toMeta({ ...meta, id: image }));
    await pool.verifyImage(image, 'qcow2', { signal, full: true });
    await assert.rejects(make(pool, volumes(1), 8 * MiB, image, digest), code('CACHE_DAMAGED'));
  });

  it('of a cached image, written by a program, is seen by the next clone, named by part, and mended by a fetch', async place => {
    const { pool } = await newPool(place);
    const image = await cacheImage(pool, place);
    const [before] = volumes(1);
    await make(pool, [before!], 8 * MiB, image);
    const path = join(place.root, 'cache', image, 'image.qcow2');
    const good = await readFile(path);
    await chmod(path, 0o644);
    const pick = picker(image);
    for (let round = 0; round < 8; round++) {
      await writeFile(path, flipBit(good, pick(good.length), pick(8)), { flag: 'r+' });
      await assert.rejects(make(pool, volumes(1), 8 * MiB, image), code('CACHE_DAMAGED'));
      await assert.rejects(pool.verifyBase(before!.id, signal), named('CACHE_DAMAGED', `${path}: part 0`));
      await assert.rejects(make(pool, volumes(1), 8 * MiB, image), code('CACHE_DAMAGED'), 'it stays damaged');
    }
    // a part of zeros too
    await writeFile(path, good);
    await make(pool, volumes(1), 8 * MiB, image);
    await writeFile(path, good.subarray(0, good.length - 512));
    await assert.rejects(make(pool, volumes(1), 8 * MiB, image), code('CACHE_DAMAGED'));
    const source = join(place.outside, 'again.qcow2');
    await writeFile(source, good);
    await fill(pool, image, source);
    await make(pool, volumes(1), 8 * MiB, image);
    assert.deepEqual(await readFile(path), good);
    assert.deepEqual((await readdir(join(place.root, 'cache', image))).sort(), ['image.qcow2', 'meta.json', 'parts.json', 'verified.json']); // prettier-ignore
    assert.deepEqual(await readdir(join(place.root, 'tmp')), []);
    await using layer = await pool.volumeFile(before!.id, before!.layerId);
    await exec('qemu-img', ['compare', '-f', 'qcow2', '-F', 'qcow2', layer.path, source]);
  });

  it('of a cached image that no program did is seen by a full look, and from then on by every clone', async place => {
    const { pool } = await newPool(place);
    const image = await cacheImage(pool, place);
    const path = join(place.root, 'cache', image, 'image.qcow2');
    const good = await readFile(path);
    await chmod(path, 0o600);
    await utimes(path, 1000, 1000);
    await make(pool, volumes(1), 8 * MiB, image);
    await writeFile(path, flipBit(good, 300_000, 2), { flag: 'r+' });
    await utimes(path, 1000, 1000);
    // a disk leaves no trace at all; here owner and mode tell of a change that explains the other times
    await chmod(path, 0o444);
    await make(pool, volumes(1), 8 * MiB, image);
    await assert.rejects(pool.verifyImage(image, 'qcow2', { signal, full: true }), named('CACHE_DAMAGED', path));
    await assert.rejects(make(pool, volumes(1), 8 * MiB, image), code('CACHE_DAMAGED'));
  });

  it('is not suspected where a VM only took and gave back its base, nor read twice after a restart', async place => {
    const { pool, id } = await newPool(place);
    const image = await cacheImage(pool, place);
    const path = join(place.root, 'cache', image, 'image.qcow2');
    const glance = async (one: typeof pool) => (await one.verifyImage(image, 'qcow2', { signal })).read;
    assert.equal(await glance(pool), 0);
    await chmod(path, 0o440);
    assert.equal(await glance(await connect(place, id, false)), 0);
    // a copy of the pool on another disk is read once
    await rename(path, `${path}.old`);
    await copyFile(`${path}.old`, path);
    await rm(`${path}.old`);
    assert.ok((await glance(pool)) > 2 * MiB);
    assert.equal(await glance(pool), 0);
  });

  it('is looked for once after each start of the host, whatever the last one found', async place => {
    const { pool } = await newPool(place);
    const image = await cacheImage(pool, place);
    const path = join(place.root, 'cache', image, 'image.qcow2');
    const note = join(place.root, 'cache', image, 'verified.json');
    const text = await readFile(note, 'utf8');
    const { boot } = JSON.parse(text) as { boot: string };
    // of a pool that hosts share each would find another one's
    const own = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
    assert.equal(boot, place.type === 'local' ? own : 'any');
    const glance = async (): Promise<number> => (await pool.verifyImage(image, 'qcow2', { signal })).read;
    unsee(path); // as in a new process
    assert.equal(await glance(), 0);
    unsee(path);
    await writeFile(note, text.replace(boot, '00000000-0000-0000-0000-000000000000'));
    assert.ok((await glance()) > 2 * MiB, 'it is read');
    unsee(path);
    assert.equal(await glance(), 0, 'once');
  });
});
