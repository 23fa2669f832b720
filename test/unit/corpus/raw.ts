import { stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import type { ErrorCode } from '../../../shared/errors.ts';
import { add, all, cut, exec, mbr, text, type Change, type CorpusImage, type Crafted } from './image.ts';

const MIB = 2 ** 20;

/** A GPT with one partition that ends 34 sectors before the end of the disk, or as said, with right checksums. */
function gpt(sector: number, say: { last?: number; table?: number }): Change {
  return b => {
    const sectors = b.length / sector;
    const header = b.subarray(sector, sector + 92);
    const table = b.subarray(2 * sector, 2 * sector + 128 * 128);
    table.write('linux filesystem', 0);
    table.writeBigUInt64LE(40n, 32);
    table.writeBigUInt64LE(BigInt(say.last ?? sectors - 34), 40);
    header.write('EFI PART\0\0\x01\0\x5c\0\0\0', 'latin1');
    header.writeBigUInt64LE(1n, 24);
    header.writeBigUInt64LE(BigInt(sectors - 1), 32);
    header.writeBigUInt64LE(BigInt(say.table ?? 2), 72);
    header.writeUInt32LE(128, 80);
    header.writeUInt32LE(128, 84);
    header.writeUInt32LE(crc32(table), 88);
    header.writeUInt32LE(crc32(header), 16);
  };
}

/** What else qemu would open, and plain disks. */
export const RAW: Crafted[] = [
  { name: 'VHD', base: 'raw', change: text(0, 'conectix'), code: 'IMAGE_FORMAT_UNKNOWN' },
  { name: 'fixed VHD', base: 'raw', change: all(mbr, add('conectix'.padEnd(512, '\0'))), code: 'IMAGE_FORMAT_UNKNOWN' },
  {
    name: 'fixed VHD, declared raw',
    base: 'raw',
    change: add('conectix'.padEnd(512, '\0')),
    declared: 'raw',
    code: 'IMAGE_FORMAT_MISMATCH',
  },
  {
    name: 'QED with a partition table',
    base: 'raw',
    change: all(text(0, 'QED\0'), mbr),
    says: /it is qed/,
    code: 'IMAGE_FORMAT_UNKNOWN',
  },
  { name: 'LUKS', base: 'raw', change: text(0, 'LUKS\xba\xbe'), code: 'IMAGE_ENCRYPTED' },
  { name: 'QED, declared raw', base: 'raw', change: text(0, 'QED\0'), declared: 'raw', code: 'IMAGE_FORMAT_MISMATCH' },
  { name: 'noise', base: 'raw', change: b => b.fill('noise'), code: 'IMAGE_FORMAT_UNKNOWN' },
  { name: 'noise, declared raw', base: 'raw', change: b => b.fill('noise'), declared: 'raw', code: null },
  { name: 'noise, declared qcow2', base: 'raw', change: b => b.fill('noise'), declared: 'qcow2', code: 'IMAGE_FORMAT_MISMATCH' },
  { name: 'nothing', base: 'raw', change: cut(0), declared: 'raw', code: 'IMAGE_TRUNCATED' },
  { name: 'one byte, declared raw', base: 'raw', change: cut(1), declared: 'raw', code: null },
  {
    name: 'VDI and VMDK at once',
    base: 'raw',
    change: all(text(0, 'KDMV'), text(0x40, '\x7f\x10\xda\xbe')),
    code: 'IMAGE_AMBIGUOUS',
  },
  {
    name: 'an ISO that starts as a qcow2, declared raw',
    base: 'raw',
    change: all(text(0, 'QFI\xfb\0\0\0\x03'), text(0x8000, '\x01CD001')),
    declared: 'raw',
    code: 'IMAGE_FORMAT_MISMATCH',
  },
  { name: 'a GPT with a wrong checksum', base: 'raw', change: text(512, 'EFI PART'), code: null },
  { name: 'a GPT for sectors of 4 KiB', base: 'raw', change: gpt(4096, {}), code: null },
  { name: 'a GPT for sectors of 4 KiB, cut', base: 'raw', change: all(gpt(4096, {}), cut(2 ** 19)), code: 'IMAGE_TRUNCATED' },
  { name: 'a GPT whose disk was made larger', base: 'raw', change: all(gpt(512, {}), add(Buffer.alloc(2 ** 20))), code: null },
  { name: 'a GPT with a partition behind its own end', base: 'raw', change: gpt(512, { last: 2 ** 40 }), code: 'IMAGE_OUTSIDE' },
  { name: 'a GPT with a partition that ends before it starts', base: 'raw', change: gpt(512, { last: 6 }), code: null },
  { name: 'a GPT with its table outside', base: 'raw', change: gpt(512, { table: 2 ** 40 }), code: 'IMAGE_OUTSIDE' },
  { name: 'an MBR without partitions', base: 'raw', change: mbr, code: null },
];

/** A disk of 32 MiB with a partition table, cut to `mebibytes`. */
function disk(name: string, table: string, code: ErrorCode | null, mebibytes = 32): CorpusImage {
  const make = async (dir: string): Promise<string> => {
    const path = await zeros(dir);
    const run = exec('sfdisk', ['--quiet', path]);
    run.child.stdin?.end(table);
    await run;
    await truncate(path, mebibytes * MIB);
    return path;
  };
  return { kind: 'raw', name, code, make };
}

function fileSystem(name: string, [command = '', ...args]: string[]): CorpusImage {
  const make = async (dir: string): Promise<string> => {
    const path = await zeros(dir);
    await exec(command, [...args, path]);
    return path;
  };
  return { kind: 'raw', name, code: null, make };
}

/** An ISO with 2 MiB of a file, of which `part` is there. */
function iso(name: string, code: ErrorCode | null, part = 1): CorpusImage {
  const make = async (dir: string): Promise<string> => {
    const path = join(dir, 'made.iso');
    await writeFile(join(dir, 'content'), Buffer.alloc(2 * MIB, 'content'));
    await exec('genisoimage', ['-quiet', '-J', '-r', '-o', path, join(dir, 'content')]);
    await truncate(path, Math.ceil((await stat(path)).size * part));
    return path;
  };
  return { kind: 'raw', name, code, make };
}

/** For LUKS qemu-img measures its CPU time, and gives up where a kernel with coarse clocks counted none: again, then. */
async function counted(create: () => Promise<unknown>, attempts = 20): Promise<void> {
  try {
    await create();
  } catch (error) {
    if (attempts === 1 || !String(error).includes('accurate CPU usage')) throw error;
    await counted(create, attempts - 1);
  }
}

/** An image of 4 MiB as `qemu-img create` makes it; `file` is the part of it that is shown. */
function created(format: string, code: ErrorCode, options: string[], file = ''): CorpusImage {
  const name = ['qemu-img create', format, ...options.filter(option => option.startsWith('subformat')), file].join(' ');
  const make = async (dir: string): Promise<string> => {
    const path = join(dir, `made.${format}`);
    await counted(() => exec('qemu-img', ['create', '-q', '-f', format, ...options, path, '4M']));
    return file ? join(dir, file) : path;
  };
  return { kind: format === 'vmdk' ? 'vmdk' : 'raw', name, code, make };
}

async function zeros(dir: string): Promise<string> {
  const path = join(dir, 'made.raw');
  await writeFile(path, '');
  await truncate(path, 32 * MIB);
  return path;
}

const GPT = 'label: gpt\nsize=4M, type=U\nsize=20M, type=L\n';
const MBR = 'label: dos\nsize=4M, type=c, bootable\nsize=24M, type=83\n';

/** What real tools make, whole and cut: disks of 32 MiB, and images of formats that are not taken. */
export const MADE: CorpusImage[] = [
  disk('GPT by sfdisk', GPT, null),
  disk('GPT by sfdisk, its backup cut off', GPT, null, 30),
  disk('GPT by sfdisk, cut in its last partition', GPT, 'IMAGE_TRUNCATED', 20),
  disk('MBR by sfdisk', MBR, null),
  disk('MBR by sfdisk, cut before its last partition', MBR, 'IMAGE_TRUNCATED', 4),
  disk('MBR with logical partitions', 'label: dos\nsize=4M, type=83\ntype=5\nsize=8M\nsize=8M\n', null),
  fileSystem('ext4', ['mkfs.ext4', '-q', '-F']),
  fileSystem('FAT', ['mkfs.vfat']),
  iso('ISO by genisoimage', null),
  iso('ISO by genisoimage, cut to half', 'IMAGE_TRUNCATED', 0.5),
  ...['qcow', 'qed', 'vpc', 'parallels'].map(format => created(format, 'IMAGE_FORMAT_UNKNOWN', [])),
  created('luks', 'IMAGE_ENCRYPTED', ['--object', 'secret,id=s,data=x', '-o', 'key-secret=s,iter-time=10']),
  created('vmdk', 'IMAGE_EXTENTS', ['-o', 'subformat=monolithicFlat']),
  created('vmdk', 'IMAGE_EXTENTS', ['-o', 'subformat=twoGbMaxExtentFlat']),
  created('vmdk', 'IMAGE_EXTENTS', ['-o', 'subformat=twoGbMaxExtentSparse']),
  created('vmdk', 'IMAGE_EXTENTS', ['-o', 'subformat=twoGbMaxExtentSparse'], 'made-s001.vmdk'),
];
