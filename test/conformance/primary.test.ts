import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFile, mkdir, readdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { compare, info } from '../../agent/host/qemu-img.ts';
import type { Pool } from '../../agent/primary/driver.ts';
import { findPrimaryDriver, primaryDriverFacts, primaryDrivers } from '../../agent/primary/registry.ts';
import { fileSource } from '../../agent/transfer/file-end.ts';
import { transfer } from '../../agent/transfer/transfer.ts';
import { newId } from '../../shared/id.ts';
import { connect, exec, ext4Place, folderPlace, newPool, type Place, signal, tree } from './primary-targets.ts';

const MiB = 2 ** 20;
const root = process.getuid?.() === 0;

/** Where each registered driver is tried. `nfs` has a part of its own below: this kernel may not be able to mount it. */
const TARGETS: { name: string; type: string; place: () => Promise<Place> }[] = [
  { name: 'local on a folder', type: 'local', place: folderPlace },
  ...(root ? [{ name: 'local on an ext4 of its own', type: 'local', place: () => ext4Place() }] : []),
];
if (!root) console.warn('not root: pools on a file system of their own are not tried');

const volumes = (count: number) => Array.from({ length: count }, () => ({ id: newId(), layerId: newId() }));
const make = (pool: Pool, specs: ReturnType<typeof volumes>, size: number, imageId?: string) =>
  pool.createVolumes(newId(), specs, size, imageId === undefined ? null : { imageId, format: 'qcow2' }, signal, () => undefined);

/** An image of 8 MiB with something in it, brought into the cache as a transfer does it. */
async function cacheImage(pool: Pool, place: Place, data = 2): Promise<string> {
  const id = newId();
  const path = join(place.outside, `${id}.qcow2`);
  await exec('qemu-img', ['create', '-q', '-f', 'qcow2', path, '8M']);
  await exec('qemu-io', ['-f', 'qcow2', '-c', `write -q -P 0xa5 1M ${data}M`, path]);
  await fill(pool, id, path);
  return id;
}

async function fill(pool: Pool, id: string, path: string, taskId = newId()): Promise<void> {
  const source = await fileSource(path);
  const sink = await pool.cacheSink(taskId, {
    id,
    format: 'qcow2',
    size: source.size,
    virtualSize: 8 * MiB,
    digest: '0'.repeat(64),
  });
  await transfer({ source, sink, streams: 1, stallSeconds: 10, signal });
}

const code = (expected: string) => (error: unknown) => {
  assert.equal((error as { code?: string }).code, expected, String(error));
  return true;
};

/** A program that has a volume open for writing, as a VM has. */
async function openIn(path: string): Promise<AsyncDisposable> {
  const child = spawn('qemu-io', ['-f', 'qcow2', path], { stdio: ['pipe', 'pipe', 'inherit'] });
  child.stdin.write('write 0 4k\n');
  await once(child.stdout, 'data');
  return {
    [Symbol.asyncDispose]: async () => {
      const ended = once(child, 'exit');
      child.stdin.end('quit\n');
      await ended;
    },
  };
}

describe('primary storage: the registry', () => {
  it('has a target for every driver', () => {
    const tried = new Set([...TARGETS.map(target => target.type), 'nfs']);
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

for (const { name, place: makePlace } of TARGETS) {
  describe(`primary storage: ${name}`, () => {
    let place: Place;
    beforeEach(async () => void (place = await makePlace()));
    afterEach(() => place[Symbol.asyncDispose]());

    describe('identity', () => {
      it('an empty place becomes the pool once, only when asked to, and is found again', async () => {
        const id = newId();
        await assert.rejects(connect(place, id, false), code('POOL_IDENTITY'));
        assert.deepEqual(await tree(place.root), []);
        assert.equal((await connect(place, id, true)).initialized, true);
        assert.equal((await connect(place, id, true)).initialized, false);
        assert.equal((await connect(place, id, false)).initialized, false);
        const { total, available } = await (await connect(place, id, false)).capacity();
        assert.ok(available > 0 && total >= available);
      });

      it('hosts that initialise one place at the same moment agree on one winner', async () => {
        for (let round = 0; round < 10; round++) {
          const ids = Array.from({ length: 8 }, () => newId());
          const tried = await Promise.allSettled(ids.map(id => connect(place, id, true)));
          const winners = tried.flatMap(one => (one.status === 'fulfilled' ? [one.value] : []));
          assert.equal(winners.length, 1);
          for (const one of tried) if (one.status === 'rejected') code('POOL_IDENTITY')(one.reason);
          await winners[0]!.forget();
        }
      });

      it('a place that is another pool is refused, also when asked to initialise', async () => {
        await newPool(place);
        const before = await tree(place.root);
        await assert.rejects(connect(place, newId(), false), code('POOL_IDENTITY'));
        await assert.rejects(connect(place, newId(), true), code('POOL_IDENTITY'));
        assert.deepEqual(await tree(place.root), before);
      });

      it('a place that holds anything else is not made a pool, and nothing is added to it', async () => {
        await writeFile(join(place.root, 'holiday.jpg'), 'x');
        await assert.rejects(connect(place, newId(), true), code('POOL_IDENTITY'));
        assert.deepEqual(await readdir(place.root).then(names => names.filter(n => n !== 'lost+found')), ['holiday.jpg']);
      });

      it('a storage that vanishes under an open pool is noticed before anything is written', async () => {
        const { pool } = await newPool(place);
        await place.vanish();
        await mkdir(place.root, { recursive: true });
        await assert.rejects(make(pool, volumes(1), MiB), code('POOL_IDENTITY'));
        await assert.rejects(pool.usage(signal), code('POOL_IDENTITY'));
        assert.deepEqual(await tree(place.root), []);
      });

      it('a pool.json that is a link, or damaged, is not believed', async () => {
        const { id } = await newPool(place);
        const file = join(place.root, 'pool.json');
        await copyFile(file, join(place.outside, 'pool.json'));
        await rm(file);
        await symlink(join(place.outside, 'pool.json'), file);
        await assert.rejects(connect(place, id, false), code('IO_ERROR'));
        await rm(file);
        await writeFile(file, '{"version":1');
        await assert.rejects(connect(place, id, true), code('IO_ERROR'));
      });
    });

    describe('image cache', () => {
      it('an image shows whole and read-only, and stays when it arrives again', async () => {
        const { pool } = await newPool(place);
        const id = await cacheImage(pool, place);
        const found = await pool.cached(id, 'qcow2');
        const { path } = pool.cacheFile(id, 'qcow2');
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

      it('shows nothing before it is published, and an aborted one leaves nothing', async () => {
        const { pool } = await newPool(place);
        const id = newId();
        const sink = await pool.cacheSink(newId(), { id, format: 'qcow2', size: MiB, virtualSize: MiB, digest: '0'.repeat(64) });
        assert.equal(await pool.cached(id, 'qcow2'), undefined);
        await sink.abort();
        assert.deepEqual(await readdir(join(place.root, 'tmp')), []);
        assert.deepEqual(await readdir(join(place.root, 'cache')), []);
      });

      it('is evicted only when nothing stands on it, not even in the trash', async () => {
        const { pool } = await newPool(place);
        const id = await cacheImage(pool, place);
        const [volume] = volumes(1);
        await make(pool, [volume!], 8 * MiB, id);
        await assert.rejects(pool.evict(id), code('IN_USE'));
        await pool.trash([volume!.id], signal);
        await assert.rejects(pool.evict(id), code('IN_USE'));
        await pool.purge(new Date(Date.now() + 1000), signal);
        assert.ok((await pool.evict(id)).freed >= 2 * MiB);
        assert.deepEqual(await pool.evict(id), { freed: 0 });
        assert.equal(await pool.cached(id, 'qcow2'), undefined);
        assert.deepEqual(await readdir(join(place.root, 'tmp')), []);
      });
    });

    describe('volumes', () => {
      it('linked clones show the bytes of their image through a relative name, and are sound', async () => {
        const { pool } = await newPool(place);
        const id = await cacheImage(pool, place);
        const specs = volumes(3);
        const { allocated } = await make(pool, specs, 16 * MiB, id);
        assert.ok(allocated > 0 && allocated < MiB);
        for (const spec of specs) {
          const disk = await pool.volumeFile(spec.id, spec.layerId);
          const { virtualSize, backing, clusterSize } = await info(disk);
          assert.deepEqual(backing, { name: `../../cache/${id}/image.qcow2`, format: 'qcow2' });
          assert.deepEqual([virtualSize, clusterSize], [16 * MiB, 131072]);
          await exec('qemu-img', ['check', '-q', '-f', 'qcow2', disk.path]);
          assert.ok(await compare(disk, { path: join(place.outside, `${id}.qcow2`), format: 'qcow2' }));
        }
        const [first] = specs;
        const disk = await pool.volumeFile(first!.id, first!.layerId);
        await exec('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 7 1M 4k', disk.path]);
        await exec('qemu-io', ['-f', 'qcow2', '-c', 'read -P 7 1M 4k', '-c', 'read -P 0xa5 1028k 4k', disk.path]);
      });

      it('are empty when they stand on nothing', async () => {
        const { pool } = await newPool(place);
        const [spec] = volumes(1);
        await make(pool, [spec!], 64 * MiB);
        const disk = await pool.volumeFile(spec!.id, spec!.layerId);
        assert.equal((await info(disk)).backing, null);
        const { stdout } = await exec('qemu-io', ['-f', 'qcow2', '-c', 'read -P 0 0 64M', disk.path]);
        assert.doesNotMatch(stdout, /Pattern verification failed/);
      });

      it('asked for again are left as they are; an id that is taken by another one is refused with all of its batch', async () => {
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

      it('are refused on an image that is not cached, below its size, and under names that are no ids', async () => {
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

      it('two hundred come at once; a cancel in the middle leaves none', async () => {
        const { pool } = await newPool(place);
        const told: number[] = [];
        await pool.createVolumes(newId(), volumes(200), MiB, null, signal, done => told.push(done));
        assert.equal(told.at(-1), 200);
        const before = await tree(place.root);
        const abort = new AbortController();
        const cancelled = pool.createVolumes(
          newId(),
          volumes(200),
          MiB,
          null,
          abort.signal,
          done => done === 50 && abort.abort(),
        );
        await assert.rejects(cancelled, code('CANCELLED'));
        assert.deepEqual(await tree(place.root), before);
      });

      it('grow, never shrink, and not while a program has them open', async () => {
        const { pool } = await newPool(place);
        const [spec] = volumes(1);
        await make(pool, [spec!], 8 * MiB);
        const { id, layerId } = spec!;
        const disk = await pool.volumeFile(id, layerId);
        assert.equal((await pool.resizeVolume(id, layerId, 16 * MiB, signal)).size, 16 * MiB);
        assert.equal((await pool.resizeVolume(id, layerId, 16 * MiB, signal)).size, 16 * MiB);
        assert.equal((await info(disk)).virtualSize, 16 * MiB);
        await assert.rejects(pool.resizeVolume(id, layerId, 8 * MiB, signal), code('BAD_REQUEST'));
        await using _vm = await openIn(disk.path);
        await assert.rejects(pool.resizeVolume(id, layerId, 32 * MiB, signal), code('VOLUME_IN_USE'));
        assert.equal((await info(disk)).virtualSize, 16 * MiB);
      });
    });

    describe('trash', () => {
      it('takes volumes out of sight, knows when, and is emptied by age', async () => {
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
        assert.deepEqual(await pool.purge(new Date(Date.now() - 60_000), signal), { removed: [], freed: 0 });
        const { removed, freed } = await pool.purge(new Date(Date.now() + 1000), signal);
        assert.deepEqual(removed.toSorted(), ids.slice(0, 2).toSorted());
        assert.equal(
          freed,
          usage.trash.reduce((sum, { allocated }) => sum + allocated, 0),
        );
        assert.deepEqual(await readdir(join(place.root, 'trash')), []);
        assert.deepEqual(await readdir(join(place.root, 'tmp')), []);
      });

      it('refuses all of a batch when a program has one of it open', async () => {
        const { pool } = await newPool(place);
        const specs = volumes(2);
        await make(pool, specs, MiB);
        {
          await using _vm = await openIn((await pool.volumeFile(specs[1]!.id, specs[1]!.layerId)).path);
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

      it('finishes a removal that a crash cut short', async () => {
        const { pool } = await newPool(place);
        const id = newId();
        await mkdir(join(place.root, 'tmp', `gone-volume-${id}`));
        await writeFile(join(place.root, 'tmp', `gone-volume-${id}`, 'x.qcow2'), 'half');
        assert.deepEqual((await pool.purge(new Date(), signal)).removed, [id]);
        assert.deepEqual(await readdir(join(place.root, 'tmp')), []);
      });

      it('takes a volume that was made again under the same id', async () => {
        const { pool } = await newPool(place);
        const [spec] = volumes(1);
        for (const size of [MiB, 2 * MiB]) {
          await make(pool, [spec!], size);
          assert.deepEqual(await pool.trash([spec!.id], signal), [spec!.id]);
        }
        assert.equal((await pool.usage(signal)).trash.length, 1);
      });
    });

    describe('tmp', () => {
      it('a scratch folder goes when its task is done with it; sweep removes what dead tasks left and no more', async () => {
        const { pool } = await newPool(place);
        const [dead, alive] = [newId(), newId()];
        {
          await using scratch = await pool.scratch(dead);
          await writeFile(join(scratch.path, 'x'), 'x');
        }
        assert.deepEqual(await readdir(join(place.root, 'tmp')), []);
        for (const id of [dead, alive]) {
          await mkdir(join(place.root, 'tmp', id, 'volumes'), { recursive: true });
          await writeFile(join(place.root, 'tmp', id, 'volumes', 'x'), 'x');
        }
        await pool.sweep([dead, newId()]);
        assert.deepEqual(await readdir(join(place.root, 'tmp')), [alive]);
      });
    });

    describe('links that somebody planted', () => {
      it('in place of an entry lead nowhere: nothing outside is read, changed or removed', async () => {
        const { pool } = await newPool(place);
        const id = newId();
        const [spec] = volumes(1);
        await writeFile(
          join(place.outside, 'meta.json'),
          JSON.stringify({ version: 1, id, layerId: id, size: 1, backing: null }),
        );
        await writeFile(join(place.outside, `${spec!.layerId}.qcow2`), 'secret');
        const outside = await tree(place.outside);
        for (const area of ['volumes', 'trash', 'cache', 'tmp']) await symlink(place.outside, join(place.root, area, id));
        await symlink(place.outside, join(place.root, 'tmp', `gone-volume-${id}`));
        await Promise.allSettled([pool.usage(signal), pool.evict(id), pool.sweep([id]), pool.trash([id], signal)]);
        await Promise.allSettled([pool.purge(new Date(Date.now() + 1000), signal), pool.scratch(id), pool.cached(id, 'qcow2')]);
        await assert.rejects(pool.volumeFile(id, spec!.layerId), code('IO_ERROR'));
        await assert.rejects(pool.resizeVolume(id, spec!.layerId, MiB, signal), code('IO_ERROR'));
        await assert.rejects(
          pool.createVolumes(id, [spec!], MiB, null, signal, () => undefined),
          code('IO_ERROR'),
        );
        await assert.rejects(make(pool, [{ ...spec!, id }], MiB), code('IO_ERROR'));
        await assert.rejects(fill(pool, newId(), join(place.outside, 'meta.json'), id), code('IO_ERROR'));
        assert.deepEqual(await tree(place.outside), outside);
      });

      it('in place of a folder of the pool stop all work', async () => {
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

      it('inside an entry are removed with it, not followed', async () => {
        const { pool } = await newPool(place);
        const [spec] = volumes(1);
        await make(pool, [spec!], MiB);
        await writeFile(join(place.outside, 'x'), 'x');
        await symlink(place.outside, join(place.root, 'volumes', spec!.id, 'link'));
        await symlink(join(place.outside, 'x'), join(place.root, 'volumes', spec!.id, 'meta.json.next'));
        const outside = await tree(place.outside);
        await pool.trash([spec!.id], signal);
        await pool.purge(new Date(Date.now() + 1000), signal);
        assert.deepEqual(await readdir(join(place.root, 'trash')), []);
        assert.deepEqual(await tree(place.outside), outside);
      });
    });

    describe('giving a pool up', () => {
      it('is refused while volumes are left; then the place is empty and can be used again', async () => {
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
  });
}

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

describe('primary storage: nfs', () => {
  const config = { server: '127.0.0.1', export: '/srv/pool', options: ['soft', 'timeo=10', 'retrans=0', 'port=1', 'proto=tcp'] };
  let place: Place;
  beforeEach(async () => void (place = { ...(await folderPlace()), type: 'nfs', config }));
  afterEach(() => place[Symbol.asyncDispose]());

  it('says at connect time what is missing: the kernel, or else the server; no mount point stays', async () => {
    const kernel = (await readFile('/proc/filesystems', 'utf8')).includes('\tnfs4\n');
    await assert.rejects(connect(place, newId(), true), code(kernel ? 'MOUNT_FAILED' : 'KERNEL_LACKS_NFS'));
    assert.deepEqual(await readdir(place.mountDir), []);
  });

  it('refuses options that are not on the list before anything is mounted', async () => {
    const risky = { ...place, config: { ...config, options: ['suid'] } };
    await assert.rejects(connect(risky, newId(), true), code('MOUNT_OPTION_REFUSED'));
    assert.deepEqual(await readdir(place.mountDir), []);
  });

  if (root)
    it('refuses a mount point on which something else is mounted, and takes that away only when told to disconnect', async () => {
      const id = newId();
      const target = join(place.mountDir, id);
      await mkdir(target);
      await exec('mount', ['-t', 'tmpfs', '--', 'none', target]);
      await assert.rejects(connect(place, id, true), code('POOL_IDENTITY'));
      assert.deepEqual(await readdir(target), []);
      const driver = findPrimaryDriver('nfs');
      const pool = { id, config: driver.config.parse(config) };
      await driver.disconnect?.(pool, { signal, mountDir: place.mountDir });
      await driver.disconnect?.(pool, { signal, mountDir: place.mountDir });
      assert.deepEqual(await readdir(place.mountDir), []);
    });
});
