/** Pools of a Ceph cluster: what holds for pools of files holds here too, with images and notes in the place of files and folders. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compare, convert, info } from '../../agent/host/qemu-img.ts';
import type { Pool } from '../../agent/primary/driver.ts';
import { findPrimaryDriver } from '../../agent/primary/registry.ts';
import { fileSource } from '../../agent/transfer/file-end.ts';
import { transfer } from '../../agent/transfer/transfer.ts';
import { newId } from '../../shared/id.ts';
import { startCeph, type TestCeph } from '../servers/ceph.ts';
import { cephTool, poolNamespace, tellsRoom } from './primary-rbd-target.ts';
import { code, make, MiB, partsOf, volumes } from './primary-steps.ts';
import { exec, signal } from './primary-targets.ts';

const driver = findPrimaryDriver('rbd');

describe('primary storage: rbd', function () {
  this.timeout(120_000);
  let ceph: TestCeph;
  let outside: string;
  let config: Awaited<ReturnType<typeof poolNamespace>>;
  const opened: string[] = [];

  before(async () => {
    ceph = await startCeph({ rgw: false, mgr: true });
    await tellsRoom(ceph);
    outside = await mkdtemp(join(tmpdir(), 'cistern-rbd-pool-'));
  });
  beforeEach(async () => void (config = await poolNamespace(ceph)));
  afterEach(async () => {
    for (const id of opened.splice(0))
      await driver.disconnect!({ id, config: driver.config.parse(config) }, { signal, mountDir: outside });
  });
  after(async () => {
    await ceph?.stop();
    await rm(outside, { recursive: true, force: true });
  });

  const connect = (id: string, initialize: boolean): Promise<Pool> => {
    opened.push(id);
    return driver.connect({ id, config: driver.config.parse(config) }, { initialize, signal, mountDir: outside });
  };
  const newPool = (): Promise<Pool> => connect(newId(), true);
  const rbd = (...args: string[]) => cephTool(ceph, 'rbd', args, config.namespace);
  const names = async () => ((await rbd('ls')).split('\n').filter(Boolean)).sort(); // prettier-ignore
  const notes = async () => (await cephTool(ceph, 'rados', ['-p', 'rbd', '-N', `${config.namespace}.cistern-pool`, 'ls'])).split('\n').filter(name => name && name !== 'pool.json').sort(); // prettier-ignore

  /** A disk of 8 MiB with something in it, as a file of `format`. */
  async function disk(format: 'qcow2' | 'raw'): Promise<string> {
    const path = join(outside, `${newId()}.${format}`);
    await exec('qemu-img', ['create', '-q', '-f', format, path, '8M']);
    await exec('qemu-io', ['-f', format, '-c', 'write -q -P 0xa5 1M 2M', path]);
    return path;
  }
  async function fill(pool: Pool, path: string, format: 'qcow2' | 'raw', id = newId()): Promise<string> {
    const source = await fileSource(path);
    const image = { id, format, size: source.size, virtualSize: 8 * MiB, ...(await partsOf(path)) };
    const sink = await pool.cacheSink(image);
    await transfer({ source, sink, parts: image.parts, partSize: image.partSize, streams: 2, stallSeconds: 30, signal });
    return id;
  }
  const cacheImage = async (pool: Pool): Promise<string> => fill(pool, await disk('qcow2'), 'qcow2');

  it('an empty place becomes the pool once, only when asked to, and is found again; another is refused', async () => {
    const id = newId();
    await assert.rejects(connect(id, false), code('POOL_IDENTITY'));
    assert.equal((await connect(id, true)).initialized, true);
    assert.equal((await connect(id, true)).initialized, false);
    assert.equal((await connect(id, false)).initialized, false);
    await assert.rejects(connect(newId(), false), code('POOL_IDENTITY'));
    await assert.rejects(connect(newId(), true), code('POOL_IDENTITY'));
    const { total, available } = await (await connect(id, false)).capacity();
    assert.ok(available > 0 && total >= available);
  });

  it('hosts that initialise one place at the same moment agree on one winner', async () => {
    const tried = await Promise.allSettled(Array.from({ length: 4 }, () => newPool()));
    assert.equal(tried.filter(one => one.status === 'fulfilled').length, 1);
    for (const one of tried) if (one.status === 'rejected') code('POOL_IDENTITY')(one.reason);
  });

  it('a place that holds anything else is not made a pool', async () => {
    await rbd('create', '--size', '1M', 'holiday');
    await assert.rejects(newPool(), code('POOL_IDENTITY'));
    assert.deepEqual(await names(), ['holiday']);
  });

  it('a wrong key, a pool that is not there and a cluster that is away are told apart, and leave no secret behind', async () => {
    const tried = async (other: object) =>
      driver.connect(
        { id: newId(), config: driver.config.parse({ ...config, ...other }) },
        { initialize: true, signal, mountDir: outside },
      );
    await assert.rejects(tried({ key: 'A'.repeat(38) + '==' }), code('POOL_CONFIG'));
    await assert.rejects(tried({ pool: 'nowhere' }), code('POOL_CONFIG'));
    await assert.rejects(tried({ monitors: '127.0.0.1:1' }), code('POOL_UNAVAILABLE'));
  });

  for (const format of ['qcow2', 'raw'] as const)
    it(`a ${format} image is cached as the disk that a guest sees, and its clones show it`, async () => {
      const pool = await newPool();
      const path = await disk(format);
      const id = await fill(pool, path, format);
      const found = await pool.cached(id, format);
      assert.equal(found?.virtualSize, 8 * MiB);
      assert.ok(found.allocated >= 2 * MiB && found.allocated <= 8 * MiB, `${found.allocated}`);
      assert.equal(await pool.cached(id, format === 'raw' ? 'qcow2' : 'raw'), undefined);
      assert.deepEqual(await names(), [`cache-${id}`]);
      assert.deepEqual(await notes(), [`cache-${id}`]);
      assert.deepEqual(await pool.verifyImage(id, format, { signal, full: true }), { parts: 1, read: 8 * MiB });
      const [spec] = volumes(1);
      const digest = found.digest;
      await pool.createVolumes(newId(), [spec!], 16 * MiB, { imageId: id, format, digest }, signal, () => undefined);
      await using layer = await pool.volumeFile(spec!.id, spec!.layerId);
      assert.equal((await info(layer)).virtualSize, 16 * MiB);
      assert.ok(await compare(layer, { path, format, backing: null }));
    });

  it('what arrives again stays as it is; one that is cut short goes on where it was', async () => {
    const pool = await newPool();
    const path = await disk('raw');
    const id = await fill(pool, path, 'raw');
    const before = await rbd('info', '--format', 'json', `cache-${id}`);
    await fill(pool, path, 'raw', id);
    assert.equal(await rbd('info', '--format', 'json', `cache-${id}`), before);

    const next = newId();
    const source = await fileSource(path);
    const parts = { ...(await partsOf(path)), id: next, format: 'raw' as const, size: source.size, virtualSize: 8 * MiB };
    const sink = await pool.cacheSink(parts);
    await sink.park!();
    assert.equal(await pool.cached(next, 'raw'), undefined);
    await (await pool.cacheSink(parts)).abort();
    assert.deepEqual(await names(), [`cache-${id}`]);
  });

  it('damage in a cached image is found and named, and the image not replaced under its clones', async () => {
    const pool = await newPool();
    const path = await disk('raw');
    const id = await fill(pool, path, 'raw');
    const { block_name_prefix: prefix } = JSON.parse(await rbd('info', '--format', 'json', `cache-${id}`)) as {
      block_name_prefix: string;
    };
    const object = `${prefix}.${'0'.padStart(16, '0')}`;
    const file = join(outside, 'object');
    const data = ['-p', 'rbd', '-N', config.namespace];
    await cephTool(ceph, 'rados', [...data, 'get', object, file]);
    const body = await readFile(file);
    body[MiB + 5]! ^= 1;
    await writeFile(file, body);
    const [spec] = volumes(1);
    const { digest } = (await pool.cached(id, 'raw'))!;
    await pool.createVolumes(newId(), [spec!], 8 * MiB, { imageId: id, format: 'raw', digest }, signal, () => undefined);
    await cephTool(ceph, 'rados', [...data, 'put', object, file]);
    await assert.rejects(pool.verifyImage(id, 'raw', { signal, full: true }), code('CACHE_DAMAGED'));
    await assert.rejects(fill(pool, path, 'raw', id), code('CACHE_DAMAGED'));
    assert.deepEqual(await names(), [`cache-${id}`, `volume-${spec!.id}`]);
    await pool.discard(await pool.trash([spec!.id], signal));
    await fill(pool, path, 'raw', id);
    assert.deepEqual(await pool.verifyImage(id, 'raw', { signal, full: true }), { parts: 1, read: 8 * MiB });
  });

  it('volumes asked for again are left as they are; an id that is taken by another is refused with all of its batch', async () => {
    const pool = await newPool();
    const specs = volumes(2);
    await make(pool, specs, 8 * MiB);
    const before = [await names(), await notes()];
    await make(pool, specs, 8 * MiB);
    assert.deepEqual([await names(), await notes()], before);
    const more = volumes(1);
    await assert.rejects(make(pool, [...more, specs[0]!], 16 * MiB), code('WRONG_STATE'));
    assert.deepEqual([await names(), await notes()], before);
  });

  it('a volume that a crash left without its note is completed by the next attempt', async () => {
    const pool = await newPool();
    const id = await cacheImage(pool);
    const [spec] = volumes(1);
    await rbd('clone', `rbd/${config.namespace}/cache-${id}@base`, `rbd/${config.namespace}/volume-${spec!.id}`);
    await make(pool, [spec!], 16 * MiB, id);
    await using layer = await pool.volumeFile(spec!.id, spec!.layerId);
    assert.equal((await info(layer)).virtualSize, 16 * MiB);
  });

  it('are refused on an image that is not cached, below its size, and under names that are no ids', async () => {
    const pool = await newPool();
    await assert.rejects(make(pool, volumes(1), 8 * MiB, newId()), code('NOT_FOUND'));
    await assert.rejects(make(pool, [{ id: '../../outside', layerId: newId() }], MiB), code('BAD_REQUEST'));
    await assert.rejects(pool.volumeFile(newId(), newId()), code('VOLUME_MISSING'));
    assert.deepEqual([await names(), await notes()], [[], []]);
    const id = await cacheImage(pool);
    await assert.rejects(make(pool, volumes(1), 4 * MiB, id), code('BAD_REQUEST'));
    assert.deepEqual(await names(), [`cache-${id}`]);
  });

  it('an image is evicted only when nothing stands on it, not even in the trash', async () => {
    const pool = await newPool();
    const id = await cacheImage(pool);
    const [volume] = volumes(1);
    await make(pool, [volume!], 8 * MiB, id);
    await assert.rejects(pool.evict(id), code('IN_USE'));
    await pool.trash([volume!.id], signal);
    await assert.rejects(pool.evict(id), code('IN_USE'));
    await pool.purge([], new Date(Date.now() + 1000), signal);
    assert.ok((await pool.evict(id)).freed >= 2 * MiB);
    assert.deepEqual(await pool.evict(id), { freed: 0 });
    assert.deepEqual([await names(), await notes()], [[], []]);
  });

  it('volumes go to the trash and come back with their bytes; a purge takes what is due', async () => {
    const pool = await newPool();
    const id = await cacheImage(pool);
    const specs = volumes(3);
    await make(pool, specs, 8 * MiB, id);
    const [a, b, c] = specs.map(spec => spec.id) as [string, string, string];
    assert.deepEqual(await pool.trash([a, b, newId()], signal), [a, b]);
    assert.deepEqual(await pool.trash([a], signal), [a]);
    const found = await pool.scan({ check: true }, signal);
    assert.deepEqual(found.volumes.map(one => [one.id, one.size, one.imageId]), [[c, 8 * MiB, id]]); // prettier-ignore
    assert.deepEqual(found.trash.map(one => one.id).sort(), [a, b].sort());
    assert.deepEqual(await pool.restore([a, c]), [a]);
    {
      await using layer = await pool.volumeFile(a, specs[0]!.layerId);
      const copy = join(outside, 'copy.raw');
      await convert({ source: layer, target: copy, targetFormat: 'raw', virtualSize: 8 * MiB });
      assert.equal((await readFile(copy))[MiB], 0xa5);
    }
    assert.deepEqual((await pool.purge([], new Date(0), signal)).removed, []);
    assert.deepEqual((await pool.purge([b], null, signal)).removed, [b]);
    const { volumes: left, trash, cache } = await pool.usage(signal);
    assert.deepEqual([left.length, trash.length, cache.length], [2, 0, 1]);
  });

  it('a volume that is open elsewhere is neither grown, uploaded nor deleted, and who has it is told', async () => {
    const pool = await newPool();
    const [spec] = volumes(1);
    await make(pool, [spec!], 8 * MiB);
    const image = { driver: 'rbd', pool: 'rbd', namespace: config.namespace, image: `volume-${spec!.id}`, conf: ceph.conf };
    const child = spawn('qemu-io', [`json:${JSON.stringify({ driver: 'raw', file: image })}`], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const ended = once(child, 'exit');
    child.stdin.write('write 0 4k\n');
    await once(child.stdout, 'data');
    const held = (error: unknown) => code('VOLUME_IN_USE')(error) && /127\.0\.0\.1/.test(String(error));
    await assert.rejects(pool.resizeVolume(spec!.id, spec!.layerId, 16 * MiB, signal), held);
    await assert.rejects(pool.volumeFile(spec!.id, spec!.layerId), held);
    await assert.rejects(pool.trash([spec!.id], signal), held);
    child.stdin.end('quit\n');
    await ended;
    assert.equal((await pool.resizeVolume(spec!.id, spec!.layerId, 16 * MiB, signal)).size, 16 * MiB);
    await assert.rejects(pool.resizeVolume(spec!.id, spec!.layerId, MiB, signal), code('BAD_REQUEST'));
  });

  it('a volume is read as it was at first, whoever writes to it meanwhile; a reader that died does not keep it', async () => {
    const pool = await newPool();
    const [spec] = volumes(1);
    await make(pool, [spec!], 8 * MiB);
    const image = { driver: 'rbd', pool: 'rbd', namespace: config.namespace, image: `volume-${spec!.id}`, conf: ceph.conf };
    const write = (pattern: number) =>
      exec('qemu-io', ['-c', `write -q -P ${pattern} 0 8M`, `json:${JSON.stringify({ driver: 'raw', file: image })}`]);
    await write(1);
    {
      await using layer = await pool.volumeFile(spec!.id, spec!.layerId);
      await write(2);
      const copy = join(outside, 'point.raw');
      await convert({ source: layer, target: copy, targetFormat: 'raw', virtualSize: 8 * MiB });
      assert.ok((await readFile(copy)).every(byte => byte === 1));
    }
    await cephTool(ceph, 'rbd', ['snap', 'create', '--no-progress', `rbd/${config.namespace}/volume-${spec!.id}@read-left`]);
    await pool.trash([spec!.id], signal);
    assert.deepEqual((await pool.purge([spec!.id], null, signal)).removed, [spec!.id]);
    assert.deepEqual(await names(), []);
  });

  it('a hundred come at once; a cancel in the middle leaves none', async () => {
    const pool = await newPool();
    const id = await cacheImage(pool);
    await make(pool, volumes(100), 8 * MiB, id);
    const before = await names();
    const cancel = new AbortController();
    const { digest } = (await pool.cached(id, 'qcow2'))!;
    const backing = { imageId: id, format: 'qcow2' as const, digest };
    const making = pool.createVolumes(
      newId(),
      volumes(30),
      8 * MiB,
      backing,
      cancel.signal,
      done => void (done === 10 && cancel.abort()),
    );
    await assert.rejects(making);
    assert.deepEqual(await names(), before);
    assert.equal((await pool.usage(signal)).volumes.length, 100);
  });

  it('is given up only without volumes; then the place is empty and can be used again', async () => {
    const pool = await newPool();
    const id = await cacheImage(pool);
    const [spec] = volumes(1);
    await make(pool, [spec!], 8 * MiB, id);
    await assert.rejects(pool.forget(), code('IN_USE'));
    await pool.trash([spec!.id], signal);
    await pool.forget();
    assert.deepEqual([await names(), await notes()], [[], []]);
    assert.equal((await newPool()).initialized, true);
  });
});
