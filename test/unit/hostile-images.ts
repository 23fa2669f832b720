import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { inspectImage } from '../../agent/host/inspect.ts';
import type { ErrorCode } from '../../shared/errors.ts';
import type { SourceFormat } from '../../shared/model.ts';

export const exec = promisify(execFile);
export const MAX = 16 * 2 ** 40;

export type Base = 'qcow2' | 'v2' | 'x' | 'vmdk' | 'stream' | 'vhdx' | 'vdi' | 'raw';
/** How qemu-img makes each honest image that is then changed: 3 GiB with some data in three places. */
const BASES: Record<Exclude<Base, 'raw'>, string[]> = {
  qcow2: ['-f', 'qcow2'],
  v2: ['-f', 'qcow2', '-o', 'compat=0.10'],
  x: ['-f', 'qcow2', '-o', 'extended_l2=on,cluster_size=128k'],
  vmdk: ['-f', 'vmdk'],
  stream: ['-f', 'vmdk', '-o', 'subformat=streamOptimized'],
  vhdx: ['-f', 'vhdx', '-o', 'block_size=1M'],
  vdi: ['-f', 'vdi'],
};

export type Change = (b: Buffer) => Buffer | void;
export interface Hostile {
  name: string;
  base: Base;
  change: Change;
  code: ErrorCode;
  /** Where several checks give the same code: the words of the one that is meant. */
  says?: RegExp;
  declared?: SourceFormat;
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

/** Honest images in a folder of their own. */
export interface Honest {
  dir: string;
  /** A copy of an image's bytes, to be changed. */
  bytes(base: Base): Buffer;
}

/** Makes these images (1 MiB of zeros, `raw`, is always there) before the tests of the `describe` it is called in, checks that each passes, and removes them after. */
export function honestImages(...wanted: Exclude<Base, 'raw'>[]): Honest {
  const bases = new Map<Base, Buffer>([['raw', Buffer.alloc(2 ** 20)]]);
  const honest: Honest = { dir: '', bytes: base => Buffer.from(bases.get(base)!) };
  before(async () => {
    honest.dir = await mkdtemp(join(tmpdir(), 'cistern-hostile-'));
    for (const base of wanted) {
      const path = join(honest.dir, base);
      const format = BASES[base][1] ?? '';
      await exec('qemu-img', ['create', '-q', ...BASES[base], path, '3G']);
      await exec('qemu-io', ['-f', format, '-c', 'write -q 0 64k', '-c', 'write -q 1G 64k', '-c', 'write -q 2G 64k', path]);
      assert.equal((await inspectImage(path, { maxVirtualSize: MAX })).virtualSize, 3 * 2 ** 30, base);
      bases.set(base, await readFile(path));
    }
  });
  after(() => rm(honest.dir, { recursive: true, force: true }));
  return honest;
}

/** One test for each: changed as told, the image is refused with the code. */
export function eachIsRefused(honest: Honest, hostile: Hostile[]): void {
  for (const { name, base, change, code, says, declared } of hostile) {
    it(`${base}: ${name} is ${code}`, async () => {
      const path = join(honest.dir, 'hostile');
      const bytes = honest.bytes(base);
      await writeFile(path, change(bytes) ?? bytes);
      await assert.rejects(inspectImage(path, { declared, maxVirtualSize: MAX }), {
        name: 'CisternError',
        code,
        message: says ?? /inspecting/,
      });
    });
  }
}
