import assert from 'node:assert/strict';
import { chmod, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CisternError, type ErrorCode } from '../../shared/errors.ts';
import { damage, flipBit } from '../unit/damage.ts';
import { cacheImage, code, make, MiB, onEveryTarget, volumes } from './primary-steps.ts';
import { connect, newPool, signal } from './primary-targets.ts';

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
      using disk = await pool.volumeFile(id, layerId);
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

  it('of the meta.json of a cached image makes no clone', async place => {
    const { pool } = await newPool(place);
    const image = await cacheImage(pool, place);
    const path = join(place.root, 'cache', image, 'meta.json');
    const good = await readFile(path);
    await chmod(path, 0o644);
    for (let at = 0; at < good.length; at += 7) {
      await writeFile(path, flipBit(good, at, at % 6));
      await assert.rejects(make(pool, volumes(1), 8 * MiB, image), error => error instanceof CisternError && error.message.includes(path)); // prettier-ignore
    }
    await writeFile(path, good);
    await make(pool, volumes(1), 8 * MiB, image);
  });
});
