import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { inspectImage } from '../../agent/host/inspect.ts';
import type { SourceFormat } from '../../shared/model.ts';

const exec = promisify(execFile);
const LIMITS = { maxVirtualSize: 64 * 2 ** 40, maxImageSize: 2 ** 40 };

interface Case {
  name: string;
  format: SourceFormat;
  /** Options of `qemu-img create`, or, with `convert`, of `qemu-img convert` from a disk with data. */
  options?: string;
  size?: string;
  convert?: string[];
}

const HONEST: Case[] = [
  { name: 'qcow2 v3, empty', format: 'qcow2', size: '10G' },
  { name: 'qcow2 v3, no bytes', format: 'qcow2', size: '0' },
  { name: 'qcow2 v3, 64 TiB', format: 'qcow2', size: '64T' },
  { name: 'qcow2 v2', format: 'qcow2', options: 'compat=0.10', size: '3G' },
  { name: 'qcow2 v2 with data', format: 'qcow2', options: 'compat=0.10', convert: [] },
  { name: 'qcow2 with extended L2', format: 'qcow2', options: 'extended_l2=on,cluster_size=128k', convert: [] },
  { name: 'qcow2 with clusters of 512 bytes', format: 'qcow2', options: 'cluster_size=512', convert: [] },
  { name: 'qcow2 with clusters of 2 MiB', format: 'qcow2', options: 'cluster_size=2M', convert: [] },
  { name: 'qcow2 with refcounts of 1 bit', format: 'qcow2', options: 'refcount_bits=1', convert: [] },
  { name: 'qcow2 with refcounts of 64 bits', format: 'qcow2', options: 'refcount_bits=64', convert: [] },
  { name: 'qcow2 with lazy refcounts', format: 'qcow2', options: 'lazy_refcounts=on', convert: [] },
  { name: 'qcow2 with preallocated metadata', format: 'qcow2', options: 'preallocation=metadata', size: '1G' },
  { name: 'qcow2, zlib', format: 'qcow2', convert: ['-c'] },
  { name: 'qcow2, zstd', format: 'qcow2', options: 'compression_type=zstd', convert: ['-c'] },
  { name: 'vmdk monolithicSparse', format: 'vmdk', convert: [] },
  { name: 'vmdk monolithicSparse, empty, 2 TiB', format: 'vmdk', size: '2T' },
  { name: 'vmdk monolithicSparse, zeroed grains', format: 'vmdk', options: 'zeroed_grain=on', convert: [] },
  { name: 'vmdk streamOptimized', format: 'vmdk', options: 'subformat=streamOptimized', convert: [] },
  { name: 'vhdx dynamic', format: 'vhdx', convert: [] },
  { name: 'vhdx fixed', format: 'vhdx', options: 'subformat=fixed', convert: [] },
  { name: 'vhdx dynamic, empty, 64 TiB', format: 'vhdx', size: '64T' },
  { name: 'vdi dynamic', format: 'vdi', convert: [] },
  { name: 'vdi static', format: 'vdi', options: 'static=on', convert: [] },
  { name: 'vdi, empty, 2 TiB', format: 'vdi', size: '2T' },
];

describe('an honest image passes the header judge', () => {
  let dir: string;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'cistern-inspect-'));
    const disk = Buffer.alloc(5 * 2 ** 20 + 512);
    for (let i = 0; i < disk.length; i += 8) disk.writeUInt32LE((i * 2654435761) >>> 0, i);
    disk.fill(0, 2 ** 20, 3 * 2 ** 20);
    writeMbr(disk);
    await writeFile(join(dir, 'disk.raw'), disk);
  });
  after(() => rm(dir, { recursive: true, force: true }));

  for (const { name, format, options, size, convert } of HONEST) {
    it(name, async () => {
      const path = join(dir, `image.${format}`);
      const o = options ? ['-o', options] : [];
      if (convert)
        await exec('qemu-img', ['convert', '-q', '-f', 'raw', '-O', format, ...convert, ...o, '--', join(dir, 'disk.raw'), path]);
      else await exec('qemu-img', ['create', '-q', '-f', format, ...o, '--', path, size ?? '1G']);
      const info = JSON.parse((await exec('qemu-img', ['info', '-f', format, '--output=json', path])).stdout) as Record<
        string,
        unknown
      >;
      const expected = { format, virtualSize: info['virtual-size'], size: (await stat(path)).size };
      assert.deepEqual(await inspectImage(path, LIMITS), expected);
      assert.deepEqual(await inspectImage(path, { ...LIMITS, declared: format }), expected);
      await rm(path);
    });
  }

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
});

function writeMbr(b: Buffer): void {
  b.fill(0, 446, 510);
  b.writeUInt8(0x80, 446);
  b.writeUInt8(0x83, 450);
  b.writeUInt16LE(0xaa55, 510);
}
