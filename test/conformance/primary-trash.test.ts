import assert from 'node:assert/strict';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { newId } from '../../shared/id.ts';
import { code, make, MiB, onEveryTarget, openIn, volumes } from './primary-steps.ts';
import { newPool, signal } from './primary-targets.ts';

onEveryTarget('trash', it => {
  it('takes volumes out of sight, knows when, and is emptied by age', async place => {
    const { pool } = await newPool(place);
    const specs = volumes(3);
    const ids = specs.map(spec => spec.id);
    await make(pool, specs, MiB);
    const gone = newId();
    assert.deepEqual(await pool.trash([...ids.slice(0, 2), gone], signal), ids.slice(0, 2));
    assert.deepEqual(await pool.trash(ids.slice(0, 2), signal), ids.slice(0, 2));
    const usage = await pool.usage(signal);
    assert.deepEqual(
      usage.volumes.map(v => v.id),
      [ids[2]],
    );
    assert.deepEqual(usage.trash.map(v => v.id).toSorted(), ids.slice(0, 2).toSorted());
    for (const { deletedAt, allocated } of usage.trash) {
      assert.ok(Math.abs(Date.parse(deletedAt) - Date.now()) < 60_000);
      assert.ok(allocated > 0);
    }
    assert.deepEqual(await pool.purge([], new Date(Date.now() - 60_000), signal), { removed: [], freed: 0 });
    const { removed, freed } = await pool.purge([], new Date(Date.now() + 1000), signal);
    assert.deepEqual(removed.toSorted(), ids.slice(0, 2).toSorted());
    assert.equal(
      freed,
      usage.trash.reduce((sum, { allocated }) => sum + allocated, 0),
    );
    assert.deepEqual(await readdir(join(place.root, 'trash')), []);
    assert.deepEqual(await readdir(join(place.root, 'tmp')), []);
  });

  it('refuses all of a batch when a program has one of it open', async place => {
    const { pool } = await newPool(place);
    const specs = volumes(2);
    await make(pool, specs, MiB);
    {
      await using disk = await pool.volumeFile(specs[1]!.id, specs[1]!.layerId);
      await using _vm = await openIn(disk.path);
      await assert.rejects(
        pool.trash(
          specs.map(s => s.id),
          signal,
        ),
        code('VOLUME_IN_USE'),
      );
      assert.equal((await pool.usage(signal)).volumes.length, 2);
    }
    assert.equal(
      (
        await pool.trash(
          specs.map(s => s.id),
          signal,
        )
      ).length,
      2,
    );
  });

  it('purges those that are named, whatever the clock of who names them says', async place => {
    const { pool } = await newPool(place);
    const [named, other] = volumes(2);
    await make(pool, [named!, other!], MiB);
    await pool.trash([named!.id, other!.id], signal);
    const { removed } = await pool.purge([named!.id], new Date(Date.now() - 60_000), signal);
    assert.deepEqual(removed, [named!.id]);
    assert.deepEqual(
      (await pool.usage(signal)).trash.map(one => one.id),
      [other!.id],
    );
  });

  it('finishes a removal that a crash cut short', async place => {
    const { pool } = await newPool(place);
    const id = newId();
    await mkdir(join(place.root, 'tmp', `gone-volume-${id}`));
    await writeFile(join(place.root, 'tmp', `gone-volume-${id}`, 'x.qcow2'), 'half');
    assert.deepEqual((await pool.purge([], new Date(), signal)).removed, [id]);
    assert.deepEqual(await readdir(join(place.root, 'tmp')), []);
  });

  it('takes a volume that was made again under the same id', async place => {
    const { pool } = await newPool(place);
    const [spec] = volumes(1);
    for (const size of [MiB, 2 * MiB]) {
      await make(pool, [spec!], size);
      assert.deepEqual(await pool.trash([spec!.id], signal), [spec!.id]);
    }
    assert.equal((await pool.usage(signal)).trash.length, 1);
  });
});

onEveryTarget('tmp', it => {
  it('sweep removes what dead tasks left and no more', async place => {
    const { pool } = await newPool(place);
    const [dead, alive] = [newId(), newId()];
    for (const id of [dead, alive]) {
      await mkdir(join(place.root, 'tmp', id, 'volumes'), { recursive: true });
      await writeFile(join(place.root, 'tmp', id, 'volumes', 'x'), 'x');
    }
    await pool.sweep([dead, newId()]);
    assert.deepEqual(await readdir(join(place.root, 'tmp')), [alive]);
  });
});
