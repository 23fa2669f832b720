import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { ErrorCode } from '../../../shared/errors.ts';
import type { SourceFormat } from '../../../shared/model.ts';

export const exec = promisify(execFile);

/** An image of the corpus: how it is made, and what the inspector must say of it. */
export interface CorpusImage {
  /** What it is a kind of, for the table. */
  kind: string;
  name: string;
  /** Null: it is honest, or harmless, and passes. */
  code: ErrorCode | null;
  /** Where several checks give the same code: the words of the one that is meant. */
  says?: RegExp;
  declared?: SourceFormat | undefined;
  /** Makes it in a folder of its own, and returns its path. */
  make(dir: string): Promise<string>;
}

export type Change = (b: Buffer) => Buffer | void;

/** An honest image, changed. */
export interface Crafted extends Omit<CorpusImage, 'kind' | 'make'> {
  base: Base;
  change: Change;
}

/** How qemu-img makes the honest images that are then changed: 3 GiB with some data in three places, or as said. `raw` is 1 MiB of zeros. */
const BASES = {
  qcow2: ['-f', 'qcow2'],
  v2: ['-f', 'qcow2', '-o', 'compat=0.10'],
  x: ['-f', 'qcow2', '-o', 'extended_l2=on,cluster_size=128k'],
  zstd: ['-f', 'qcow2', '-o', 'compression_type=zstd'],
  wide: ['-f', 'qcow2', '-o', 'cluster_size=512'],
  vmdk: ['-f', 'vmdk'],
  stream: ['-f', 'vmdk', '-o', 'subformat=streamOptimized'],
  vhdx: ['-f', 'vhdx', '-o', 'block_size=1M'],
  vdi: ['-f', 'vdi'],
};
export type Base = keyof typeof BASES | 'raw';

/** The bytes of an honest image, to be changed; `small` ones are of 64 MiB and have small tables. The file is DIR/base.BASE. */
export async function honestBytes(base: Base, dir: string, small = false): Promise<Buffer> {
  if (base === 'raw') return Buffer.alloc(2 ** 20);
  const path = join(dir, `base.${base}`);
  const options = BASES[base];
  const format = options[1] ?? '';
  const mebibytes = base === 'wide' ? 64 * 1024 : small ? 64 : 3 * 1024;
  const tables = small && format === 'qcow2' ? ['-o', 'cluster_size=16k'] : [];
  await exec('qemu-img', ['create', '-q', ...options, ...tables, path, `${mebibytes}M`]);
  const writes = [0, 1, 2].flatMap(third => ['-c', `write -q ${Math.floor((mebibytes * third) / 3)}M 64k`]);
  if (base !== 'wide') await exec('qemu-io', ['-f', format, ...writes, path]);
  return readFile(path);
}

/** The images of a list as images of the corpus; each base is made once. */
export function crafted(kind: string, list: readonly Crafted[], bases: Map<Base, Buffer>): CorpusImage[] {
  return list.map(({ base, change, ...rest }) => ({
    kind,
    ...rest,
    name: `${base}: ${rest.name}`,
    async make(dir) {
      const made = bases.get(base) ?? (await honestBytes(base, dir));
      bases.set(base, made);
      const path = join(dir, 'crafted');
      const bytes = Buffer.from(made);
      await writeFile(path, change(bytes) ?? bytes);
      return path;
    },
  }));
}

/** What `qemu-img info` says of an image that passed: its disk's size, and that it is nothing but this one file. */
export async function qemuInfo(path: string, format: string): Promise<number> {
  const { stdout } = await exec('qemu-img', ['info', '-f', format, '--output=json', path]);
  const said = JSON.parse(stdout) as Record<string, unknown>;
  assert.equal(said['backing-filename'], undefined);
  return said['virtual-size'] as number;
}

export const u16 =
  (at: number, value: number): Change =>
  b =>
    void b.writeUInt16LE(value, at);
export const be32 =
  (at: number, value: number): Change =>
  b =>
    void b.writeUInt32BE(value >>> 0, at);
export const be64 =
  (at: number, value: bigint): Change =>
  b =>
    void b.writeBigUInt64BE(value, at);
export const le32 =
  (at: number, value: number): Change =>
  b =>
    void b.writeUInt32LE(value >>> 0, at);
export const le64 =
  (at: number, value: bigint): Change =>
  b =>
    void b.writeBigUInt64LE(value, at);
export const text =
  (at: number, value: string): Change =>
  b =>
    void b.write(value, at, 'latin1');
export const cut =
  (length: number): Change =>
  b =>
    b.subarray(0, length);
export const all =
  (...changes: Change[]): Change =>
  b =>
    changes.reduce((now: Buffer, change) => change(now) ?? now, b);
export const add =
  (...more: (Buffer | string)[]): Change =>
  b =>
    Buffer.concat([b, ...more.map(one => Buffer.from(one as string, 'latin1'))]);

/** Puts a master boot record without partitions into it. */
export const mbr: Change = b => {
  b.fill(0, 446, 512);
  b.writeUInt16LE(0xaa55, 510);
};
/** Where qemu's VHDX has its metadata, from the start of the file. */
export const VHDX_METADATA = 0x30_0000;
