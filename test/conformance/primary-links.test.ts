import assert from 'node:assert/strict';
import { readdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { newId } from '../../shared/id.ts';
import { code, fill, make, MiB, onEveryTarget, volumes } from './primary-steps.ts';
import { newPool, signal, tree } from './primary-targets.ts';

onEveryTarget('links that somebody planted', it => {
  it('in place of an entry lead nowhere: nothing outside is read, changed or removed', async place => {
    const { pool } = await newPool(place);
    const [id, task, image] = [newId(), newId(), newId()];
    const [spec] = volumes(1);
    await writeFile(join(place.outside, 'meta.json'), JSON.stringify({ version: 1, id, layerId: id, size: 1, backing: null }));
    await writeFile(join(place.outside, `${spec!.layerId}.qcow2`), 'secret');
    const outside = await tree(place.outside);
    for (const area of ['volumes', 'trash', 'cache', 'tmp']) await symlink(place.outside, join(place.root, area, id));
    for (const name of [task, `gone-volume-${id}`, `fill-${newId()}`])
      await symlink(place.outside, join(place.root, 'tmp', name));
    await Promise.allSettled([pool.usage(signal), pool.evict(id), pool.sweep([id]), pool.trash([id], signal)]);
    await Promise.allSettled([pool.purge([], new Date(Date.now() + 1000), signal), pool.cached(id, 'qcow2')]);
    await assert.rejects(pool.volumeFile(id, spec!.layerId), code('IO_ERROR'));
    await assert.rejects(pool.resizeVolume(id, spec!.layerId, MiB, signal), code('IO_ERROR'));
    await assert.rejects(
      pool.createVolumes(task, [spec!], MiB, null, signal, () => undefined),
      code('IO_ERROR'),
    );
    await assert.rejects(make(pool, [{ ...spec!, id }], MiB), code('IO_ERROR'));
    await symlink(place.outside, join(place.root, 'tmp', `fill-${image}`));
    await assert.rejects(fill(pool, image, join(place.outside, 'meta.json')), code('IO_ERROR'));
    assert.deepEqual(await tree(place.outside), outside);
  });

  it('in place of a folder of the pool stop all work', async place => {
    const { pool } = await newPool(place);
    const specs = volumes(1);
    await make(pool, specs, MiB);
    await writeFile(join(place.outside, 'x'), 'x');
    const outside = await tree(place.outside);
    for (const area of ['cache', 'volumes', 'trash', 'tmp']) {
      await rename(join(place.root, area), join(place.root, `${area}.real`));
      await symlink(place.outside, join(place.root, area));
      await assert.rejects(make(pool, volumes(1), MiB), code('IO_ERROR'));
      await assert.rejects(pool.trash([specs[0]!.id], signal), code('IO_ERROR'));
      await assert.rejects(pool.sweep([newId()]), code('IO_ERROR'));
      await rm(join(place.root, area));
      await rename(join(place.root, `${area}.real`), join(place.root, area));
    }
    assert.deepEqual(await tree(place.outside), outside);
  });

  it('inside an entry are removed with it, not followed', async place => {
    const { pool } = await newPool(place);
    const [spec] = volumes(1);
    await make(pool, [spec!], MiB);
    await writeFile(join(place.outside, 'x'), 'x');
    await symlink(place.outside, join(place.root, 'volumes', spec!.id, 'link'));
    await symlink(join(place.outside, 'x'), join(place.root, 'volumes', spec!.id, 'meta.json.next'));
    const outside = await tree(place.outside);
    await pool.trash([spec!.id], signal);
    await pool.purge([], new Date(Date.now() + 1000), signal);
    assert.deepEqual(await readdir(join(place.root, 'trash')), []);
    assert.deepEqual(await tree(place.outside), outside);
  });
});
