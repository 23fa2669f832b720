import assert from 'node:assert/strict';
import { copyFile, mkdir, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { findPrimaryDriver, primaryDriverFacts, primaryDrivers } from '../../agent/primary/registry.ts';
import { newId } from '../../shared/id.ts';
import { cacheImage, code, fill, make, MiB, onEveryTarget, root, TARGETS, volumes } from './primary-steps.ts';
import { connect, ext4Place, newPool, signal, tree } from './primary-targets.ts';

describe('primary storage: the registry', () => {
  it('has a target for every driver', () => {
    const tried = new Set([...TARGETS.map(target => target.type), 'nfs', 'rbd']);
    assert.deepEqual(primaryDrivers.map(driver => driver.type).toSorted(), [...tried].toSorted());
  });

  it('names the types there are where another is asked for', () => {
    assert.throws(() => findPrimaryDriver('floppy'), code('DRIVER_UNKNOWN'));
  });

  it('tells the settings of each driver as JSON Schema, each with a description', () => {
    for (const { config } of primaryDriverFacts())
      for (const [name, setting] of Object.entries(config.properties as Record<string, { description?: string }>))
        assert.ok(setting.description, `${name} has no description`);
  });
});

onEveryTarget('identity', it => {
  it('an empty place becomes the pool once, only when asked to, and is found again', async place => {
    const id = newId();
    await assert.rejects(connect(place, id, false), code('POOL_IDENTITY'));
    assert.deepEqual(await tree(place.root), []);
    assert.equal((await connect(place, id, true)).initialized, true);
    assert.equal((await connect(place, id, true)).initialized, false);
    assert.equal((await connect(place, id, false)).initialized, false);
    const { total, available } = await (await connect(place, id, false)).capacity();
    assert.ok(available > 0 && total >= available);
  });

  it('hosts that initialise one place at the same moment agree on one winner', async place => {
    for (let round = 0; round < 10; round++) {
      const ids = Array.from({ length: 8 }, () => newId());
      const tried = await Promise.allSettled(ids.map(id => connect(place, id, true)));
      const winners = tried.flatMap(one => (one.status === 'fulfilled' ? [one.value] : []));
      assert.equal(winners.length, 1);
      for (const one of tried) if (one.status === 'rejected') code('POOL_IDENTITY')(one.reason);
      await winners[0]!.forget();
    }
  });

  it('a place that is another pool is refused, also when asked to initialise', async place => {
    await newPool(place);
    const before = await tree(place.root);
    await assert.rejects(connect(place, newId(), false), code('POOL_IDENTITY'));
    await assert.rejects(connect(place, newId(), true), code('POOL_IDENTITY'));
    assert.deepEqual(await tree(place.root), before);
  });

  it('a place that holds anything else is not made a pool, and nothing is added to it', async place => {
    await writeFile(join(place.root, 'holiday.jpg'), 'x');
    await assert.rejects(connect(place, newId(), true), code('POOL_IDENTITY'));
    assert.deepEqual(await readdir(place.root).then(names => names.filter(n => n !== 'lost+found')), ['holiday.jpg']);
  });

  it('a storage that vanishes under an open pool is noticed before anything is written', async place => {
    const { pool } = await newPool(place);
    await place.vanish();
    await mkdir(place.root, { recursive: true });
    await assert.rejects(make(pool, volumes(1), MiB), code('POOL_IDENTITY'));
    await assert.rejects(pool.usage(signal), code('POOL_IDENTITY'));
    assert.deepEqual(await tree(place.root), []);
  });

  it('a pool.json that is a link, or damaged, is not believed', async place => {
    const { id } = await newPool(place);
    const file = join(place.root, 'pool.json');
    await copyFile(file, join(place.outside, 'pool.json'));
    await rm(file);
    await symlink(join(place.outside, 'pool.json'), file);
    await assert.rejects(connect(place, id, false), code('IO_ERROR'));
    await rm(file);
    await writeFile(file, '{"version":1');
    await assert.rejects(connect(place, id, true), code('POOL_IDENTITY'));
  });
});

onEveryTarget('giving a pool up', it => {
  it('is refused while volumes are left; then the place is empty and can be used again', async place => {
    const { pool } = await newPool(place);
    const id = await cacheImage(pool, place);
    const [spec] = volumes(1);
    await make(pool, [spec!], 8 * MiB, id);
    await assert.rejects(pool.forget(), code('IN_USE'));
    await pool.trash([spec!.id], signal);
    await pool.forget();
    assert.deepEqual(await tree(place.root), []);
    assert.equal((await newPool(place)).pool.initialized, true);
  });
});

if (root)
  describe('primary storage: a file system that is full', () => {
    it('takes no volume and no image, says POOL_FULL, and nothing is left of the attempt', async () => {
      await using place = await ext4Place(32);
      const { pool } = await newPool(place);
      const image = join(place.outside, 'image');
      await writeFile(image, Buffer.alloc(40 * MiB, 1));
      await assert.rejects(fill(pool, newId(), image), code('POOL_FULL'));
      assert.deepEqual(await readdir(join(place.root, 'tmp')), []);
      await writeFile(join(place.root, 'filler'), Buffer.alloc((await pool.capacity()).available - MiB, 1));
      const before = await tree(place.root);
      await assert.rejects(make(pool, volumes(1000), 8 * MiB), code('POOL_FULL'));
      assert.deepEqual(await tree(place.root), before);
      await make(pool, volumes(10), 8 * MiB);
      assert.equal((await pool.usage(signal)).volumes.length, 10);
    });
  });
