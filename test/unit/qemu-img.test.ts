import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as qemuImg from '../../agent/host/qemu-img.ts';
import { run } from '../../agent/host/run.ts';
import { CisternError } from '../../shared/errors.ts';

const MiB = 2 ** 20;
const fails = (code: string, words: RegExp) => (error: unknown) => {
  assert.ok(error instanceof CisternError, String(error));
  assert.equal(error.code, code, error.message);
  assert.match(error.message, words);
  return true;
};

describe('qemu-img', () => {
  let folder: string;
  let raw: qemuImg.QemuDisk;
  const at = (name: string): string => join(folder, name);
  const qcow2 = (name: string): qemuImg.QemuDisk => ({ path: at(name), format: 'qcow2' });

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'qemu-img-'));
    raw = { path: at('disk.raw'), format: 'raw' };
    writeFileSync(raw.path, Buffer.concat([Buffer.alloc(4 * MiB, 'water '), Buffer.alloc(4 * MiB)]));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  it('converts a raw disk to qcow2 and back, and tells how far it is', async () => {
    const seen: number[] = [];
    await qemuImg.convert({ source: raw, target: at('a.qcow2'), targetFormat: 'qcow2', progress: done => seen.push(done) });
    assert.deepEqual(
      seen,
      [...seen].sort((a, b) => a - b),
    );
    assert.equal(seen.at(-1), 100);
    assert.ok(await qemuImg.compare(raw, qcow2('a.qcow2')));
    assert.deepEqual(await qemuImg.check(qcow2('a.qcow2')), { errors: 0, corruptions: 0, leaks: 0 });
    const found = await qemuImg.info(qcow2('a.qcow2'));
    assert.equal(found.virtualSize, 8 * MiB);
    assert.ok(found.allocated < 6 * MiB, 'zeros take no space');
    await qemuImg.convert({ source: qcow2('a.qcow2'), target: at('b.raw'), targetFormat: 'raw' });
    assert.ok(await qemuImg.compare(raw, { path: at('b.raw'), format: 'raw' }));
  });

  it('compresses on request', async () => {
    await qemuImg.convert({ source: raw, target: at('small.qcow2'), targetFormat: 'qcow2', compress: true });
    assert.ok(statSync(at('small.qcow2')).size < MiB);
    assert.ok(await qemuImg.compare(raw, qcow2('small.qcow2')));
    const { stdout } = await run('qemu-img', ['info', at('small.qcow2')]);
    assert.match(stdout, /compression type: zstd/);
  });

  it('means exactly the file it was told, whatever its name looks like', async () => {
    for (const name of ['with,comma', 'nbd:localhost:1', 'json:{"driver":"null-co"}', '--help', 'q"uote\\', 'fat:rw:x', '100%']) {
      const target = at(`${name}.qcow2`);
      await qemuImg.convert({ source: raw, target, targetFormat: 'qcow2' });
      assert.ok(existsSync(target), name);
      assert.ok(await qemuImg.compare(raw, { path: target, format: 'qcow2' }), name);
      await qemuImg.resize({ path: target, format: 'qcow2' }, 16 * MiB);
      assert.equal((await qemuImg.info({ path: target, format: 'qcow2' })).virtualSize, 16 * MiB, name);
    }
    await assert.rejects(qemuImg.info({ path: 'disk.raw', format: 'raw' }), fails('IO_ERROR', /absolute/));
    await assert.rejects(qemuImg.createEmpty({ path: '/tmp/../etc/x', size: MiB }), fails('IO_ERROR', /absolute/));
  });

  it('reads a raw disk as raw although a guest wrote a qcow2 header into it', async () => {
    await qemuImg.createEmpty({ path: at('inner.qcow2'), size: 64 * MiB });
    renameSync(at('inner.qcow2'), at('trap.raw'));
    const found = await qemuImg.info({ path: at('trap.raw'), format: 'raw' });
    assert.ok(found.virtualSize < MiB, 'its own size, not the 64 MiB that it claims');
  });

  it('makes an empty volume and grows it, and never shrinks it', async () => {
    await qemuImg.createEmpty({ path: at('v.qcow2'), size: 64 * MiB });
    await qemuImg.resize(qcow2('v.qcow2'), 128 * MiB);
    assert.equal((await qemuImg.info(qcow2('v.qcow2'))).virtualSize, 128 * MiB);
    await assert.rejects(qemuImg.resize(qcow2('v.qcow2'), 64 * MiB), fails('TOOL_FAILED', /--shrink/));
  });

  it('makes a linked clone with sub-clusters and a relative backing name, so that the pool may move', async () => {
    mkdirSync(at('cache'));
    mkdirSync(at('volumes'));
    await qemuImg.convert({ source: raw, target: at('cache/image.qcow2'), targetFormat: 'qcow2' });
    const backing = { name: '../cache/image.qcow2', format: 'qcow2' as const };
    await qemuImg.createOverlay({ path: at('volumes/a.qcow2'), backing });
    await qemuImg.createOverlay({ path: at('volumes/b.qcow2'), backing, size: 32 * MiB, extendedL2: false });
    const a = await qemuImg.info(qcow2('volumes/a.qcow2'));
    assert.deepEqual(a.backing, backing);
    assert.equal(a.clusterSize, 128 * 1024);
    assert.equal(a.virtualSize, 8 * MiB);
    assert.equal((await qemuImg.info(qcow2('volumes/b.qcow2'))).virtualSize, 32 * MiB);
    const moved = `${folder}-moved`;
    renameSync(folder, moved);
    try {
      const disks = [join(moved, 'disk.raw'), join(moved, 'volumes/a.qcow2')];
      execFileSync('qemu-img', ['compare', '-q', '-f', 'raw', '-F', 'qcow2', '--', ...disks]);
    } finally {
      renameSync(moved, folder);
    }
  });

  it('refuses backing names that qemu would take for a protocol, an option or another place', async () => {
    for (const name of ['nbd:localhost', 'json:{}', '/etc/passwd', '-b', 'a,b', ''])
      await assert.rejects(
        qemuImg.createOverlay({ path: at('o.qcow2'), backing: { name, format: 'raw' } }),
        fails('IO_ERROR', /no relative name/),
      );
  });

  it('leaves nothing when the backing file is missing', async () => {
    const making = qemuImg.createOverlay({ path: at('o.qcow2'), backing: { name: 'gone.qcow2', format: 'qcow2' } });
    await assert.rejects(making, fails('TOOL_FAILED', /gone.qcow2/));
    assert.ok(!existsSync(at('o.qcow2')));
  });

  it('opens a disk that must stand alone without its backing file', async () => {
    await qemuImg.createOverlay({ path: at('o.qcow2'), backing: { name: 'disk.raw', format: 'raw' } });
    await qemuImg.convert({ source: { ...qcow2('o.qcow2'), backing: null }, target: at('out.raw'), targetFormat: 'raw' });
    writeFileSync(at('zeros.raw'), Buffer.alloc(8 * MiB));
    assert.ok(await qemuImg.compare({ path: at('out.raw'), format: 'raw' }, { path: at('zeros.raw'), format: 'raw' }));
  });

  it('never writes over, nor removes, a file that was there before', async () => {
    writeFileSync(at('mine.qcow2'), 'precious');
    await assert.rejects(
      qemuImg.convert({ source: raw, target: at('mine.qcow2'), targetFormat: 'qcow2' }),
      fails('IO_ERROR', /EEXIST/),
    );
    assert.equal(statSync(at('mine.qcow2')).size, 8);
  });

  it('says VOLUME_IN_USE and names the file while another program has it open', async () => {
    await qemuImg.createEmpty({ path: at('v.qcow2'), size: 64 * MiB });
    const vm = spawn('qemu-io', ['-f', 'qcow2', '--', at('v.qcow2')], { stdio: ['pipe', 'pipe', 'inherit'] });
    try {
      await once(vm.stdout, 'data'); // its prompt: the disk is open
      await assert.rejects(qemuImg.resize(qcow2('v.qcow2'), 128 * MiB), fails('VOLUME_IN_USE', /v\.qcow2/));
      const converting = qemuImg.convert({ source: qcow2('v.qcow2'), target: at('copy.qcow2'), targetFormat: 'qcow2' });
      await assert.rejects(converting, fails('VOLUME_IN_USE', /v\.qcow2/));
      assert.ok(!existsSync(at('copy.qcow2')), 'nothing is left of the copy');
      assert.equal((await qemuImg.info(qcow2('v.qcow2'))).virtualSize, 64 * MiB, 'looking is allowed');
    } finally {
      vm.stdin.end();
      await once(vm, 'exit');
    }
  });

  it('says POOL_FULL on a full file system and removes what it had written', async () => {
    mkdirSync(at('small'));
    await run('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', at('small')]);
    try {
      const converting = qemuImg.convert({ source: raw, target: at('small/a.qcow2'), targetFormat: 'qcow2' });
      await assert.rejects(converting, fails('POOL_FULL', /No space left on device/));
      assert.ok(!existsSync(at('small/a.qcow2')));
    } finally {
      await run('umount', ['--', at('small')]);
    }
  });

  it('cancels at once and removes the partial file', async () => {
    writeFileSync(at('large.raw'), Buffer.alloc(64 * MiB, 'not so easy to compress'));
    const cancel = new AbortController();
    const converting = qemuImg.convert({
      source: { path: at('large.raw'), format: 'raw' },
      target: at('a.qcow2'),
      targetFormat: 'qcow2',
      compress: true,
      signal: cancel.signal,
      progress: () => cancel.abort(),
    });
    await assert.rejects(converting, fails('CANCELLED', /cancelled/));
    assert.ok(!existsSync(at('a.qcow2')));
  });

  it('tells a damaged disk from a sound one', async () => {
    await qemuImg.convert({ source: raw, target: at('a.qcow2'), targetFormat: 'qcow2' });
    copyFileSync(at('a.qcow2'), at('bad.qcow2'));
    await run('qemu-io', ['-f', 'raw', '-c', 'write -P 0 131072 512', '--', at('bad.qcow2')]); // its reference counts
    const found = await qemuImg.check(qcow2('bad.qcow2'));
    assert.ok(found.corruptions > 0);
  });

  it('knows its version and what that can do', async () => {
    assert.match(await qemuImg.version(), /^\d+\.\d+/);
    assert.deepEqual(['4.2.1', '5.1.0', '5.2.0', '7.2.22', '10.0.2'].map(qemuImg.supportsExtendedL2), [
      false,
      false,
      true,
      true,
      true,
    ]);
  });
});
