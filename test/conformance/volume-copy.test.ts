/** Copies of volumes from every kind of pool to every kind. No pair is written by hand. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { compare } from '../../agent/host/qemu-img.ts';
import type { Pool, VolumeSpec } from '../../agent/primary/driver.ts';
import { rbdPlaces } from './primary-rbd-target.ts';
import { cacheImage, code, fill, make, MiB, TARGETS, volumes } from './primary-steps.ts';
import { exec, newPool, type Place, signal } from './primary-targets.ts';

const SIZE = 24 * MiB;
let ceph: Awaited<ReturnType<typeof rbdPlaces>>;
const POOLS = [...TARGETS, { name: 'rbd', type: 'rbd', place: () => ceph.place() }];
const FILES = TARGETS;
const options = { signal, streams: 2, stallSeconds: 30, progress: () => undefined };

interface Pair extends AsyncDisposable {
  source: Pool;
  target: Pool;
  here: Place;
  /** Cached in `source`; the volume is a larger clone of it, to which somebody wrote where that is easy. */
  image: string;
  spec: VolumeSpec;
}

async function pair(fromPlace: () => Promise<Place>, toPlace: () => Promise<Place>): Promise<Pair> {
  await using stack = new AsyncDisposableStack();
  const [here, there] = [stack.use(await fromPlace()), stack.use(await toPlace())];
  const [{ pool: source }, { pool: target }] = [await newPool(here), await newPool(there)];
  const image = await cacheImage(source, here);
  const [spec] = volumes(1);
  await make(source, [spec!], SIZE, image);
  await using disk = await source.volumeFile(spec!.id, spec!.layerId);
  if (disk.nbd !== true)
    await exec('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 0x5a 3M 70k', '-c', 'write -q -P 1 20M 4k', disk.path]);
  const owner = stack.move();
  return { source, target, here, image, spec: spec!, [Symbol.asyncDispose]: () => owner.disposeAsync() };
}

async function same({ source, target, spec }: Pair): Promise<void> {
  await using a = await source.volumeFile(spec.id, spec.layerId);
  await using b = await target.volumeFile(spec.id, spec.layerId);
  assert.ok(await compare(a, b, signal), 'the copy shows other bytes');
}

async function copy({ source, target, spec }: Pair, more = {}, backing: Parameters<Pool['copyVolume']>[2] = null) {
  await using disk = await source.volumeFile(spec.id, spec.layerId);
  return await target.copyVolume({ ...spec, name: 'named', kind: 'root' }, disk, backing, { ...options, ...more });
}

describe('copies of volumes', function () {
  this.timeout(120_000);
  before(async () => void (ceph = await rbdPlaces()));
  after(() => ceph?.[Symbol.asyncDispose]());

  for (const { name: from, place: fromPlace } of POOLS)
    for (const { name: to, place: toPlace } of POOLS)
      it(`${from} to ${to}: stand alone, are whole or not there, and leave the volume as it is`, async () => {
        await using both = await pair(fromPlace, toPlace);
        const { source, target, spec } = both;
        const before = await source.version(spec.id, spec.layerId);
        await assert.rejects(copy(both, { signal: AbortSignal.abort() }));
        assert.deepEqual((await target.scan({ check: false }, signal)).volumes, []);
        assert.equal((await copy(both)).size, SIZE);
        await copy(both); // over what an attempt has left that was cut short behind its end
        await same(both);
        assert.equal(await source.version(spec.id, spec.layerId), before);
        const found = await target.scan({ check: true }, signal);
        assert.deepEqual(
          found.volumes.map(({ id, layerId, name, kind, size, imageId, problem }) => ({
            id,
            layerId,
            name,
            kind,
            size,
            imageId,
            problem,
          })),
          [{ ...spec, name: 'named', kind: 'root', size: SIZE, imageId: null, problem: null }],
        );
        await target.trash([spec.id], signal);
        await target.discard([spec.id]);
        assert.deepEqual(await target.scan({ check: false }, signal), { volumes: [], trash: [], cache: [] });
      });

  for (const { name: from, place: fromPlace } of FILES)
    for (const { name: to, place: toPlace } of FILES)
      it(`${from} to ${to}: stand on the cached image there, and take what was written since`, async () => {
        await using both = await pair(fromPlace, toPlace);
        const { source, target, here, image, spec } = both;
        const { digest } = (await source.cached(image, 'qcow2'))!;
        const backing = { imageId: image, format: 'qcow2' as const, digest };
        await assert.rejects(copy(both, {}, backing), code('NOT_FOUND'));
        await fill(target, image, join(here.outside, `${image}.qcow2`));
        const { allocated, transfer } = await copy(both, {}, backing);
        assert.ok(transfer!.zeroBytes + transfer!.moved <= transfer!.bytes);
        await same(both);
        const { volumes: found } = await target.scan({ check: true }, signal);
        assert.deepEqual([found[0]!.imageId, found[0]!.problem], [image, null]);
        const { volumes: taken } = await source.usage(signal);
        assert.ok(allocated <= taken.find(one => one.id === spec.id)!.allocated + MiB, `${allocated} bytes`);
      });

  it('are refused where the layer stands on something else than its note says', async () => {
    await using both = await pair(FILES[0]!.place, FILES[0]!.place);
    const { source, target, here, image, spec } = both;
    const { digest } = (await source.cached(image, 'qcow2'))!;
    await fill(target, image, join(here.outside, `${image}.qcow2`));
    const { path } = await source.volumeFile(spec.id, spec.layerId);
    await exec('qemu-img', ['rebase', '-u', '-f', 'qcow2', '-F', 'raw', '-b', '/etc/passwd', path]);
    await assert.rejects(copy(both, {}, { imageId: image, format: 'qcow2', digest }), code('IMAGE_CORRUPT'));
    assert.deepEqual((await target.scan({ check: false }, signal)).volumes, []);
  });
});
