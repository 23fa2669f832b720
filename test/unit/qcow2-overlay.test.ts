import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { overlayBytes, overlayImage, overlayMatches, writeOverlay } from '../../agent/host/qcow2-overlay.ts';
import type { OverlaySpec } from '../../agent/host/qcow2-overlay.ts';

const exec = promisify(execFile);
const GiB = 2 ** 30;

async function createWithQemuImg(path: string, spec: OverlaySpec): Promise<void> {
  const options = `extended_l2=${(spec.extendedL2 ?? true) ? 'on' : 'off'},cluster_size=${2 ** (spec.clusterBits ?? 17)}`;
  const backing = spec.backing ? ['-F', spec.backing.format, '-b', spec.backing.name] : [];
  await exec('qemu-img', ['create', '-q', '-f', 'qcow2', ...backing, '-o', options, '--', path, String(spec.size)]);
}

describe('a linked clone written without qemu-img', () => {
  let dir: string;
  const file = (name: string) => join(dir, name);

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'cistern-overlay-'));
    await createWithQemuImg(file('base.qcow2'), { size: 10 * GiB, backing: null });
    await exec('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 7 1M 3M', file('base.qcow2')]);
    await writeFile(file('base.raw'), Buffer.alloc(4 * 2 ** 20, 5));
  });
  after(() => rm(dir, { recursive: true, force: true }));

  async function assertSame(spec: OverlaySpec): Promise<void> {
    const [ours, theirs] = [file('ours.qcow2'), file('theirs.qcow2')];
    const image = overlayImage(spec);
    assert.ok(image, `no image for ${JSON.stringify(spec)}`);
    writeOverlay(ours, image, { sync: false });
    await createWithQemuImg(theirs, spec);
    assert.ok((await readFile(ours)).equals(await readFile(theirs)), `differs from qemu-img: ${JSON.stringify(spec)}`);
    assert.ok(overlayBytes(image).equals(await readFile(theirs)));
    assert.equal((await stat(ours)).mode, (await stat(theirs)).mode);
    await exec('qemu-img', ['check', '-q', '-f', 'qcow2', ours]);
    await rm(ours);
    await rm(theirs);
  }

  const sizes = [
    0,
    1,
    511,
    512,
    513,
    2 ** 20,
    2 ** 20 + 1,
    512 * 2 ** 20,
    512 * 2 ** 20 + 512,
    10 * GiB,
    10 * GiB + 1536,
    2048 * GiB,
    65536 * GiB,
  ];
  const backings = [null, { name: 'base.qcow2', format: 'qcow2' }, { name: 'base.raw', format: 'raw' }] as const;
  for (const backing of backings) {
    it(`has the bytes that qemu-img writes, ${backing ? `on ${backing.format}` : 'alone'}, for every size`, async () => {
      for (const size of sizes) for (const extendedL2 of [true, false]) await assertSame({ size, backing, extendedL2 });
    });
  }

  it('has the same bytes for other cluster sizes', async () => {
    for (const clusterBits of [13, 16, 21]) await assertSame({ size: 2 ** 20, backing: null, extendedL2: false, clusterBits });
    for (const clusterBits of [14, 16, 21]) await assertSame({ size: 3 * GiB, backing: null, clusterBits });
  });

  it('has the same bytes with names in other folders and with the longest name', async () => {
    await mkdir(file('cache/0190-a_b'), { recursive: true });
    await createWithQemuImg(file('cache/0190-a_b/image.qcow2'), { size: GiB, backing: null });
    await assertSame({ size: GiB, backing: { name: 'cache/0190-a_b/image.qcow2', format: 'qcow2' } });
    await assertSame({ size: GiB, backing: { name: `${'./'.repeat(506)}/base.qcow2`, format: 'qcow2' } });
  });

  it('stays the same as its twin from qemu-img after the same writes', async () => {
    const spec: OverlaySpec = { size: 10 * GiB, backing: { name: 'base.qcow2', format: 'qcow2' } };
    writeOverlay(file('ours.qcow2'), overlayImage(spec)!, { sync: true });
    await createWithQemuImg(file('theirs.qcow2'), spec);
    const writes = [
      'write -q -P 1 4k 4k',
      'write -q -P 2 1M 300k',
      'write -q -P 3 9G 1M',
      'write -q -z 5G 64M',
      'discard -q 1M 64k',
    ];
    for (const name of ['ours.qcow2', 'theirs.qcow2']) {
      await exec('qemu-io', ['-f', 'qcow2', ...writes.flatMap(command => ['-c', command]), file(name)]);
      await exec('qemu-img', ['check', '-q', '-f', 'qcow2', file(name)]);
    }
    assert.ok((await readFile(file('ours.qcow2'))).equals(await readFile(file('theirs.qcow2'))));
    await exec('qemu-img', ['compare', '-q', '-f', 'qcow2', '-F', 'qcow2', file('ours.qcow2'), file('theirs.qcow2')]);
    await exec('qemu-io', ['-f', 'qcow2', '-c', 'read -q -P 7 2M 1M', file('ours.qcow2')]);
  });

  it('leaves to qemu-img what it would lay out otherwise', () => {
    assert.equal(overlayImage({ size: 32768 * GiB, backing: null, extendedL2: false, clusterBits: 13 }), undefined); // two refcount blocks
    assert.equal(overlayImage({ size: 2 ** 50, backing: null, extendedL2: false, clusterBits: 13 }), undefined); // L1 above 32 MiB
    assert.equal(overlayImage({ size: 0, backing: null, clusterBits: 13 }), undefined); // too small for extended L2
    assert.equal(overlayImage({ size: 0, backing: null, extendedL2: false, clusterBits: 12 }), undefined); // another header
  });

  it('refuses names that could mean something else to qemu', () => {
    for (const name of ['', 'nbd:localhost:1', 'json:{}', 'a,b', 'a b', 'ä', 'x'.repeat(1024)]) {
      assert.throws(() => overlayImage({ size: 0, backing: { name, format: 'raw' } }), { code: 'INTERNAL' });
    }
    assert.throws(() => overlayImage({ size: -1, backing: null }), { code: 'INTERNAL' });
    assert.throws(() => overlayImage({ size: 2 ** 53, backing: null }), { code: 'INTERNAL' });
  });

  it('never writes over a file, and leaves nothing of one that failed', async () => {
    const image = overlayImage({ size: GiB, backing: null })!;
    await writeFile(file('there'), 'precious');
    assert.throws(() => writeOverlay(file('there'), image, { sync: false }), { code: 'IO_ERROR' });
    assert.equal(await readFile(file('there'), 'utf8'), 'precious');
    const impossible = { chunks: image.chunks, length: Number.MAX_SAFE_INTEGER };
    assert.throws(() => writeOverlay(file('failed'), impossible, { sync: false }), { code: 'IO_ERROR' });
    assert.ok(!(await readdir(dir)).includes('failed'));
  });

  it('asks the installed qemu-img whether it writes the same bytes, and believes it', async () => {
    const oracle = await mkdtemp(join(dir, 'oracle-'));
    assert.equal(await overlayMatches(createWithQemuImg, oracle), true);
    const changed = async (path: string, spec: OverlaySpec) => {
      await createWithQemuImg(path, spec);
      if (spec.backing?.format === 'raw') await truncate(path, (await stat(path)).size + 512);
    };
    assert.equal(await overlayMatches(changed, oracle), false);
    await assert.rejects(
      overlayMatches(() => Promise.reject(new Error('no qemu-img')), oracle),
      /no qemu-img/,
    );
    assert.deepEqual(await readdir(oracle), []);
  });

  it('takes far less than a process would', async () => {
    const image = overlayImage({ size: 10 * GiB, backing: { name: 'base.qcow2', format: 'qcow2' } })!;
    const before = performance.now();
    for (let i = 0; i < 200; i++) writeOverlay(file(`many-${i}.qcow2`), image, { sync: false });
    const each = (performance.now() - before) / 200;
    await exec('qemu-img', ['check', '-q', '-f', 'qcow2', file('many-199.qcow2')]);
    assert.ok(each < 5, `${each} ms for one`);
  });
});
