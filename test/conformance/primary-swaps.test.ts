/** Links that come and go while the agent works: what it looked at is not what it uses, unless it holds it. */
import assert from 'node:assert/strict';
import { cp, lstat, mkdir, readdir, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { toMeta } from '../../agent/primary/file-pool/meta.ts';
import { CisternError } from '../../shared/errors.ts';
import { newId } from '../../shared/id.ts';
import { cacheImage, make, MiB, volumes } from './primary-steps.ts';
import { folderPlace, newPool, type Place, signal, tree } from './primary-targets.ts';
import { record, swapping } from './swapping.ts';

const ROUNDS = 25;

describe('primary storage: links swapped in while the agent works', () => {
  let place: Place;
  beforeEach(async () => void (place = await folderPlace()));
  afterEach(() => place[Symbol.asyncDispose]());

  it('lead it nowhere: nothing outside is made, changed, removed or read', async function () {
    this.timeout(300_000);
    const { pool } = await newPool(place);
    const image = await cacheImage(pool, place);
    const specs = volumes(2);
    const [one, two] = [specs[0]!, specs[1]!];
    const task = newId();
    await make(pool, specs, 8 * MiB, image);
    const backing = { imageId: image, format: 'qcow2' as const, digest: (await pool.cached(image, 'qcow2'))!.digest };

    // outside lies what would be taken for volumes, cache and trash of this pool, for one volume, and for one task's folder
    const outside = join(place.outside, 'canary');
    await mkdir(outside);
    for (const folder of ['.', one.id, two.id, image, task, `${task}/volumes`, `gone-volume-${one.id}`]) {
      const here = join(outside, folder);
      await mkdir(here, { recursive: true });
      for (const { id, layerId } of specs) {
        await cp(join(place.root, 'volumes', id, `${layerId}.qcow2`), join(here, `${layerId}.qcow2`));
        const meta = { version: 1, id, layerId, size: 8 * MiB, backing: null, createdAt: new Date().toISOString() };
        await writeFile(join(here, 'meta.json'), toMeta(meta));
      }
      await cp(join(place.root, 'cache', image, 'image.qcow2'), join(here, 'image.qcow2'));
    }
    const content = await tree(outside);
    for (const name of (await readdir(outside, { recursive: true })).reverse()) await utimes(join(outside, name), 1, 2);
    const before = await record(outside);

    const at = (...names: string[]): string => join(place.root, ...names);
    const names = [
      at('volumes'),
      at('trash'),
      at('tmp'),
      at('cache'),
      at('volumes', one.id),
      at('volumes', two.id),
      at('volumes', two.id, `${two.layerId}.qcow2`),
      at('volumes', two.id, 'meta.json'),
      at('trash', one.id),
      at('tmp', task),
      at('tmp', task, 'volumes'),
      at('cache', image),
      at('cache', image, 'meta.json'),
    ];
    let done = 0;
    const work = async (step: () => Promise<unknown>): Promise<void> => {
      await step().then(
        () => done++,
        (error: unknown) => assert.ok(error instanceof CisternError, String((error as Error).stack)),
      );
    };
    {
      await using _swapper = await swapping(outside, names);
      for (let i = 0; i < ROUNDS; i++) {
        await work(() => pool.usage(signal));
        await work(async () => void (await pool.volumeFile(two.id, two.layerId))[Symbol.asyncDispose]());
        await work(() => pool.resizeVolume(two.id, two.layerId, (9 + i) * MiB, signal));
        await work(() => pool.cached(image, 'qcow2'));
        await work(() => pool.trash([one.id], signal));
        await work(() => (i % 2 === 0 ? pool.restore([one.id]) : pool.purge([one.id], new Date(0), signal)));
        await work(() => pool.createVolumes(task, [one], 8 * MiB, backing, signal, () => undefined));
        await work(() => pool.evict(image));
        await work(() => pool.sweep([task]));
      }
    }
    assert.deepEqual(await record(outside), before);
    assert.deepEqual(await tree(outside), content);
    assert.ok(done > 0, 'some of the work was done in spite of all');
  });

  it('show when a path is used twice: this is the race that is lost without held folders', async () => {
    const outside = join(place.outside, 'canary');
    await mkdir(outside);
    await mkdir(join(place.root, 'entry'));
    let led = 0;
    {
      await using _swapper = await swapping(outside, [join(place.root, 'entry')]);
      for (let i = 0; i < 20_000 && led === 0; i++) {
        const path = join(place.root, 'entry');
        if ((await lstat(path).catch(() => undefined))?.isDirectory() !== true) continue;
        await writeFile(join(path, 'x'), 'x').catch(() => undefined);
        led += (await readdir(outside)).length;
      }
    }
    assert.ok(led > 0, 'looking and then using led outside');
  });
});
