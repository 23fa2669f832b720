import assert from 'node:assert/strict';
import { mkdtemp, rm, stat, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspectImage } from '../../agent/host/inspect.ts';
import { disk } from './corpus/honest.ts';
import { exec } from './corpus/image.ts';

const LIMITS = { maxVirtualSize: 64 * 2 ** 40, maxImageSize: 2 ** 40 };

describe('the header judge takes an image', () => {
  let dir: string;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'cistern-inspect-'));
    await disk(dir);
  });
  after(() => rm(dir, { recursive: true, force: true }));

  it('after a guest wrote to it and after snapshots came and went', async () => {
    const path = join(dir, 'used.qcow2');
    await exec('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', 'extended_l2=on,cluster_size=128k', path, '3G']);
    await exec('qemu-io', [
      '-f',
      'qcow2',
      '-c',
      'write -q 2G 4k',
      '-c',
      'write -q -z 1G 1M',
      '-c',
      'write -q 5M 3M',
      '-c',
      'discard -q 5M 1M',
      path,
    ]);
    await exec('qemu-img', ['snapshot', '-c', 'one', path]);
    await exec('qemu-io', ['-f', 'qcow2', '-c', 'write -q 2G 64k', path]);
    await assert.rejects(inspectImage(path, LIMITS), { code: 'IMAGE_SNAPSHOTS' });
    await exec('qemu-img', ['snapshot', '-d', 'one', path]);
    await exec('qemu-img', ['resize', '-q', '--shrink', '-f', 'qcow2', path, '1G']);
    await exec('qemu-img', ['resize', '-q', '-f', 'qcow2', path, '700G']);
    assert.equal((await inspectImage(path, LIMITS)).virtualSize, 700 * 2 ** 30);
  });

  it('raw, known by a partition table or a file system, or declared; the last sector counts whole', async () => {
    const path = join(dir, 'plain.raw');
    const marks: Record<string, (b: Buffer) => void> = {
      mbr: writeMbr,
      gpt: b => b.write('EFI PART', 512),
      iso9660: b => b.write('\x01CD001', 0x8000),
      ext4: b => b.writeUInt16LE(0xef53, 0x438),
      xfs: b => b.write('XFSB', 0),
    };
    for (const [name, mark] of Object.entries(marks)) {
      const b = Buffer.alloc(0x10000 + 100);
      mark(b);
      await writeFile(path, b);
      assert.deepEqual(await inspectImage(path, LIMITS), { format: 'raw', virtualSize: 0x10200, size: 0x10000 + 100 }, name);
    }
    await writeFile(path, Buffer.alloc(10, 'x'));
    assert.deepEqual(await inspectImage(path, { ...LIMITS, declared: 'raw' }), { format: 'raw', virtualSize: 512, size: 10 });
    await assert.rejects(inspectImage(path, LIMITS), { code: 'IMAGE_FORMAT_UNKNOWN', action: /[Dd]eclare/ });
  });

  it('whatever is inside of it: a disk that holds the marks of other formats in its own data', async () => {
    const nested = join(dir, 'nested.raw');
    const b = Buffer.alloc(2 ** 20, 1);
    for (let i = 0; i < b.length; i += 512) b.write(i % 1024 ? 'KDMV' : 'QFI\xfb', i, 'latin1');
    for (let i = 0; i < b.length; i += 2048) b.write('CD001', i + 1);
    writeMbr(b);
    await writeFile(nested, b);
    for (const format of ['qcow2', 'vmdk', 'vhdx', 'vdi'] as const) {
      const path = join(dir, `nested.${format}`);
      await exec('qemu-img', [
        'convert',
        '-f',
        'raw',
        '-O',
        format,
        ...(format === 'qcow2' ? ['-o', 'cluster_size=512'] : []),
        nested,
        path,
      ]);
      assert.equal((await inspectImage(path, LIMITS)).format, format);
    }
  });

  it('but not past the limits', async () => {
    const path = join(dir, 'large.qcow2');
    await exec('qemu-img', ['create', '-q', '-f', 'qcow2', path, '2G']);
    await assert.rejects(inspectImage(path, { maxVirtualSize: 2 ** 30 }), { code: 'IMAGE_TOO_LARGE', message: /maxVirtualSize/ });
    await assert.rejects(inspectImage(join(dir, 'disk.raw'), { maxVirtualSize: 2 ** 20 }), { code: 'IMAGE_TOO_LARGE' });
    await assert.rejects(inspectImage(path, { maxVirtualSize: 2 ** 40, maxImageSize: 4096 }), {
      code: 'IMAGE_TOO_LARGE',
      message: /maxImageSize/,
    });
  });

  it('and not when its transfer was cut', async () => {
    const stream = ['-o', 'subformat=streamOptimized'];
    for (const [format, ...o] of [['qcow2'], ['vhdx'], ['vdi'], ['vmdk'], ['vmdk', ...stream]] as [string, ...string[]][]) {
      const path = join(dir, `cut.${format}`);
      await exec('qemu-img', ['convert', '-f', 'raw', '-O', format, ...o, join(dir, 'disk.raw'), path]);
      const { size } = await stat(path);
      for (const part of [0.9, 0.5, 0.1, 0.001]) {
        await truncate(path, Math.floor((size * part) / 512) * 512);
        await assert.rejects(inspectImage(path, LIMITS), { code: 'IMAGE_TRUNCATED' }, `${format} ${o.join(' ')} cut to ${part}`);
      }
    }
  });

  it('and never opens a link, a FIFO or a folder, or what is not there', async () => {
    await symlink(join(dir, 'disk.raw'), join(dir, 'link'));
    await exec('mkfifo', [join(dir, 'fifo')]);
    for (const name of ['link', 'fifo', '.', 'missing'])
      await assert.rejects(inspectImage(join(dir, name), LIMITS), { name: 'CisternError', code: 'IO_ERROR' }, name);
  });
});

function writeMbr(b: Buffer): void {
  b.fill(0, 446, 510);
  b.writeUInt8(0x80, 446);
  b.writeUInt8(0x83, 450);
  b.writeUInt16LE(0xaa55, 510);
}
