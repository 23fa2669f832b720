import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { SourceFormat } from '../../../shared/model.ts';
import { exec, type CorpusImage } from './image.ts';

interface Case {
  name: string;
  format: SourceFormat;
  /** Options of `qemu-img create`, or, with `convert`, of `qemu-img convert` from a disk with data. */
  options?: string;
  size?: string;
  convert?: string[];
}

const CASES: Case[] = [
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

/** What qemu-img makes, with many options; each passes with its format declared and without. */
export const HONEST: CorpusImage[] = CASES.flatMap(({ name, format, options, size, convert }) =>
  [undefined, format].map(declared => ({
    kind: format,
    name: declared ? `${name}, declared` : name,
    code: null,
    declared,
    async make(dir: string) {
      const path = join(dir, `image.${format}`);
      await rm(path, { force: true });
      const o = options ? ['-o', options] : [];
      if (convert)
        await exec('qemu-img', ['convert', '-q', '-f', 'raw', '-O', format, ...convert, ...o, '--', await disk(dir), path]);
      else await exec('qemu-img', ['create', '-q', '-f', format, ...o, '--', path, size ?? '1G']);
      return path;
    },
  })),
);

/** 5 MiB and a sector, with a hole in it and the mark of a partition table. */
export async function disk(dir: string): Promise<string> {
  const bytes = Buffer.alloc(5 * 2 ** 20 + 512);
  for (let i = 0; i < bytes.length; i += 8) bytes.writeUInt32LE((i * 2654435761) >>> 0, i);
  bytes.fill(0, 2 ** 20, 3 * 2 ** 20);
  bytes.fill(0, 446, 510);
  bytes.writeUInt8(0x80, 446);
  bytes.writeUInt16LE(0xaa55, 510);
  const path = join(dir, 'disk.raw');
  await writeFile(path, bytes);
  return path;
}
