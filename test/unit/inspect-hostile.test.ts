import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { crc32c } from '../../agent/host/inspect/crc32c.ts';
import { inspectImage } from '../../agent/host/inspect.ts';
import type { ErrorCode } from '../../shared/errors.ts';
import type { SourceFormat } from '../../shared/model.ts';

const exec = promisify(execFile);
const MAX = 16 * 2 ** 40;

type Base = 'qcow2' | 'v2' | 'x' | 'vmdk' | 'stream' | 'vhdx' | 'vdi' | 'raw';
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

type Change = (b: Buffer) => Buffer | void;
interface Hostile {
  name: string;
  base: Base;
  change: Change;
  code: ErrorCode;
  /** Where several checks give the same code: the words of the one that is meant. */
  says?: RegExp;
  declared?: SourceFormat;
}

const u16 =
  (at: number, value: number): Change =>
  b =>
    void b.writeUInt16LE(value, at);
const be32 =
  (at: number, value: number): Change =>
  b =>
    void b.writeUInt32BE(value >>> 0, at);
const be64 =
  (at: number, value: bigint): Change =>
  b =>
    void b.writeBigUInt64BE(value, at);
const le32 =
  (at: number, value: number): Change =>
  b =>
    void b.writeUInt32LE(value >>> 0, at);
const le64 =
  (at: number, value: bigint): Change =>
  b =>
    void b.writeBigUInt64LE(value, at);
const text =
  (at: number, value: string): Change =>
  b =>
    void b.write(value, at, 'latin1');
const cut =
  (length: number): Change =>
  b =>
    b.subarray(0, length);
const all =
  (...changes: Change[]): Change =>
  b =>
    changes.reduce((now: Buffer, change) => change(now) ?? now, b);
const add =
  (...more: (Buffer | string)[]): Change =>
  b =>
    Buffer.concat([b, ...more.map(one => Buffer.from(one as string, 'latin1'))]);

/** A qcow2 header extension put in front of those that are there. */
const ext =
  (type: number, data: string, length = data.length): Change =>
  b => {
    const start = b.readUInt32BE(100);
    const size = 8 + Math.ceil(data.length / 8) * 8;
    b.copyWithin(start + size, start, start + 1024);
    b.fill(0, start, start + size);
    b.writeUInt32BE(type, start);
    b.writeUInt32BE(length, start + 4);
    b.write(data, start + 8, 'latin1');
  };

const l1 = (b: Buffer) => Number(b.readBigUInt64BE(40));
const mbr: Change = b => {
  b.fill(0, 446, 512);
  b.writeUInt16LE(0xaa55, 510);
};

const DESCRIPTOR = 512;
/** The VMDK's descriptor with words replaced, padded to its old length. */
const words =
  (from: string | RegExp, to: string): Change =>
  b => {
    const now = b.toString('latin1', DESCRIPTOR, DESCRIPTOR + 10240).replace(/\0+$/, '');
    assert.match(now, typeof from === 'string' ? new RegExp(from) : from);
    b.fill(0, DESCRIPTOR, DESCRIPTOR + 10240);
    b.write(now.replace(from, to), DESCRIPTOR, 'latin1');
  };
/** As VMware streams it: the grain directory's place stands only in a footer, which `change` may touch. */
const footer =
  (change: Change): Change =>
  b => {
    const header = Buffer.from(b.subarray(0, 512));
    b.writeBigUInt64LE(2n ** 64n - 1n, 56);
    const marker = Buffer.alloc(512);
    marker.writeBigUInt64LE(1n, 0);
    marker.writeUInt32LE(3, 12);
    change(header);
    const whole = Buffer.alloc(Math.ceil(b.length / 512) * 512);
    b.copy(whole);
    return Buffer.concat([whole, marker, header, Buffer.alloc(512)]);
  };

const HEADERS = [65536, 131072];
const REGIONS = 196608;
const METADATA = 0x30_0000;
/** Where qemu's VHDX has its block table, and the metadata items, from the start of the file. */
const BAT = 0x20_0000;
const ITEM = { parameters: METADATA + 65536, size: METADATA + 65536 + 8 };
/** Changes checksummed parts of a VHDX and makes their checksums right again. */
const sealed =
  (change: Change): Change =>
  b => {
    change(b);
    for (const at of HEADERS) b.writeUInt32LE(crc32c(b.subarray(at, at + 4096), 4), at + 4);
    b.writeUInt32LE(crc32c(b.subarray(REGIONS, REGIONS + 65536), 4), REGIONS + 4);
  };
const bothHeaders = (change: (at: number) => Change): Change => sealed(all(...HEADERS.map(change)));

const HOSTILE: Hostile[] = [
  // qcow2
  {
    name: 'backing file',
    base: 'qcow2',
    change: all(be64(8, 0x300n), be32(16, 11), text(0x300, '/etc/passwd')),
    code: 'IMAGE_BACKING_FILE',
  },
  {
    name: 'backing file that is another program',
    base: 'v2',
    change: all(be64(8, 0x300n), be32(16, 8), text(0x300, 'json:{ }')),
    code: 'IMAGE_BACKING_FILE',
  },
  {
    name: 'backing file name outside of the file',
    base: 'qcow2',
    change: all(be64(8, 2n ** 63n), be32(16, 0xffff_ffff)),
    code: 'IMAGE_BACKING_FILE',
  },
  { name: 'external data file bit', base: 'qcow2', change: be64(72, 4n), code: 'IMAGE_DATA_FILE' },
  { name: 'raw external data bit', base: 'qcow2', change: be64(88, 2n), code: 'IMAGE_DATA_FILE' },
  { name: 'external data file name', base: 'qcow2', change: ext(0x44415441, '/etc/shadow'), code: 'IMAGE_DATA_FILE' },
  { name: 'unknown incompatible bit', base: 'qcow2', change: be64(72, 32n), code: 'IMAGE_FEATURE_UNKNOWN' },
  { name: 'highest incompatible bit', base: 'qcow2', change: be64(72, 2n ** 63n), code: 'IMAGE_FEATURE_UNKNOWN' },
  { name: 'unknown version', base: 'qcow2', change: be32(4, 4), code: 'IMAGE_FEATURE_UNKNOWN' },
  {
    name: 'unknown compression',
    base: 'qcow2',
    change: all(be64(72, 8n), b => void b.writeUInt8(2, 104)),
    code: 'IMAGE_FEATURE_UNKNOWN',
  },
  { name: 'compression bit without a type', base: 'qcow2', change: be64(72, 8n), code: 'IMAGE_CORRUPT' },
  { name: 'compression type without the bit', base: 'qcow2', change: b => void b.writeUInt8(1, 104), code: 'IMAGE_CORRUPT' },
  {
    name: 'persistent bitmaps',
    base: 'qcow2',
    change: ext(0x23852875, '\0\0\0\x01'.padEnd(24, '\0')),
    code: 'IMAGE_FEATURE_UNKNOWN',
  },
  { name: 'dirty bit', base: 'qcow2', change: be64(72, 1n), code: 'IMAGE_CORRUPT' },
  { name: 'corrupt bit', base: 'qcow2', change: be64(72, 2n), code: 'IMAGE_CORRUPT' },
  { name: 'AES', base: 'v2', change: be32(32, 1), code: 'IMAGE_ENCRYPTED' },
  { name: 'LUKS method', base: 'qcow2', change: be32(32, 2), code: 'IMAGE_ENCRYPTED' },
  { name: 'LUKS header', base: 'qcow2', change: ext(0x0537be77, ''.padEnd(16, '\0')), code: 'IMAGE_ENCRYPTED' },
  { name: 'four thousand million snapshots', base: 'qcow2', change: be32(60, 0xffff_ffff), code: 'IMAGE_SNAPSHOTS' },
  { name: 'cluster_bits 8', base: 'qcow2', change: be32(20, 8), says: /cluster_bits is/, code: 'IMAGE_CORRUPT' },
  { name: 'cluster_bits 22', base: 'qcow2', change: be32(20, 22), says: /cluster_bits is/, code: 'IMAGE_CORRUPT' },
  { name: 'cluster_bits 2^32-1', base: 'qcow2', change: be32(20, 0xffff_ffff), says: /cluster_bits is/, code: 'IMAGE_CORRUPT' },
  { name: 'extended L2 in clusters of 4 KiB', base: 'x', change: be32(20, 12), says: /16 KiB/, code: 'IMAGE_CORRUPT' },
  { name: 'refcount_order 7', base: 'qcow2', change: be32(96, 7), code: 'IMAGE_CORRUPT' },
  { name: 'header_length 100', base: 'qcow2', change: be32(100, 100), code: 'IMAGE_CORRUPT' },
  { name: 'header_length past its cluster', base: 'qcow2', change: be32(100, 0xffff_fff8), code: 'IMAGE_CORRUPT' },
  { name: 'header extension past its cluster', base: 'qcow2', change: ext(0x1234, 'x', 0xffff_ffff), code: 'IMAGE_CORRUPT' },
  { name: 'virtual size 2^63', base: 'qcow2', change: be64(24, 2n ** 63n), code: 'IMAGE_TOO_LARGE' },
  { name: 'virtual size that its L1 table does not reach', base: 'qcow2', change: be64(24, 2n ** 40n), code: 'IMAGE_CORRUPT' },
  { name: 'no L1 table', base: 'qcow2', change: be32(36, 0), code: 'IMAGE_CORRUPT' },
  { name: 'L1 table of 32 GiB', base: 'qcow2', change: be32(36, 0xffff_ffff), code: 'IMAGE_CORRUPT' },
  { name: 'L1 table on the header', base: 'qcow2', change: be64(40, 0n), code: 'IMAGE_CORRUPT' },
  { name: 'L1 table that is not aligned', base: 'qcow2', change: be64(40, 0x1_0200n), code: 'IMAGE_CORRUPT' },
  {
    name: 'L1 table outside of the file',
    base: 'qcow2',
    change: be64(40, 2n ** 62n),
    says: /the L1 table takes/,
    code: 'IMAGE_TRUNCATED',
  },
  {
    name: 'L2 table outside of the file',
    base: 'qcow2',
    change: b => void b.writeBigUInt64BE(2n ** 55n, l1(b)),
    code: 'IMAGE_TRUNCATED',
  },
  {
    name: 'L2 table that is not aligned',
    base: 'qcow2',
    change: b => void b.writeBigUInt64BE(0x1_0200n, l1(b)),
    code: 'IMAGE_CORRUPT',
  },
  {
    name: 'L1 entry with reserved bits',
    base: 'qcow2',
    change: b => void b.writeBigUInt64BE(2n ** 56n, l1(b)),
    code: 'IMAGE_CORRUPT',
  },
  {
    name: 'one L2 table for all of the disk (a bomb)',
    base: 'qcow2',
    change: b => b.copyWithin(l1(b) + 8, l1(b), l1(b) + 8),
    code: 'IMAGE_CORRUPT',
  },
  {
    name: 'refcount table outside of the file',
    base: 'qcow2',
    change: be64(48, 2n ** 40n),
    says: /the refcount table takes/,
    code: 'IMAGE_TRUNCATED',
  },
  { name: 'refcount table that is not aligned', base: 'qcow2', change: be64(48, 0x1_0001n), code: 'IMAGE_CORRUPT' },
  { name: 'refcount table of no clusters', base: 'qcow2', change: be32(56, 0), code: 'IMAGE_CORRUPT' },
  { name: 'refcount table of 2^32-1 clusters', base: 'qcow2', change: be32(56, 0xffff_ffff), code: 'IMAGE_CORRUPT' },
  { name: 'refcount block outside of the file', base: 'qcow2', change: be64(0x1_0008, 2n ** 40n), code: 'IMAGE_TRUNCATED' },
  {
    name: 'cut in its last cluster but one',
    base: 'qcow2',
    change: b => b.subarray(0, b.length - 0x1_0000),
    code: 'IMAGE_TRUNCATED',
  },
  { name: 'cut in its header', base: 'qcow2', change: cut(80), code: 'IMAGE_TRUNCATED' },
  { name: 'cut after its magic', base: 'qcow2', change: cut(4), code: 'IMAGE_TRUNCATED' },
  { name: 'an ISO in its unused bytes', base: 'qcow2', change: text(0x8000, '\x01CD001'), code: 'IMAGE_AMBIGUOUS' },
  { name: 'a GPT in its unused bytes', base: 'qcow2', change: text(4096, 'EFI PART'), code: 'IMAGE_AMBIGUOUS' },
  { name: 'an MBR in its unused bytes', base: 'v2', change: mbr, code: 'IMAGE_AMBIGUOUS' },
  { name: 'a VDI signature in its header', base: 'qcow2', change: be32(64, 0x7f10dabe), code: 'IMAGE_AMBIGUOUS' },
  { name: 'declared raw', base: 'qcow2', change: () => undefined, declared: 'raw', code: 'IMAGE_FORMAT_MISMATCH' },
  { name: 'declared vmdk', base: 'qcow2', change: () => undefined, declared: 'vmdk', code: 'IMAGE_FORMAT_MISMATCH' },
  { name: 'version 1', base: 'qcow2', change: be32(4, 1), code: 'IMAGE_FORMAT_UNKNOWN' },
  // vmdk
  {
    name: 'text descriptor that names /etc/passwd',
    base: 'raw',
    change: () => Buffer.from('# Disk DescriptorFile\n\nversion=1\ncreateType="monolithicFlat"\nRW 8 FLAT "/etc/passwd" 0\n'),
    code: 'IMAGE_EXTENTS',
  },
  {
    name: 'text descriptor, declared raw',
    base: 'raw',
    change: () => Buffer.from('# Disk DescriptorFile\r\nversion=3\r\n'),
    declared: 'raw',
    code: 'IMAGE_FORMAT_MISMATCH',
  },
  { name: 'descriptor without disk', base: 'vmdk', change: le64(12, 0n), code: 'IMAGE_EXTENTS' },
  { name: 'no descriptor (one of several extents)', base: 'vmdk', change: le64(28, 0n), code: 'IMAGE_EXTENTS' },
  { name: 'flat extent', base: 'vmdk', change: words(/SPARSE "[^"]*"/, 'FLAT "flat.vmdk" 0'), code: 'IMAGE_EXTENTS' },
  { name: 'two extents', base: 'vmdk', change: words(/RW .*\n/, '$&RW 8 SPARSE "two.vmdk"\n'), code: 'IMAGE_EXTENTS' },
  { name: 'no extent', base: 'vmdk', change: words(/RW .*\n/, ''), code: 'IMAGE_EXTENTS' },
  { name: 'absolute extent', base: 'vmdk', change: words(/SPARSE "[^"]*"/, 'SPARSE "/dev/sda"'), code: 'IMAGE_EXTENTS' },
  {
    name: 'extent in the folder above',
    base: 'stream',
    change: words(/SPARSE "[^"]*"/, 'SPARSE "..\\x"'),
    code: 'IMAGE_EXTENTS',
  },
  { name: 'createType monolithicFlat', base: 'vmdk', change: words('monolithicSparse', 'monolithicFlat'), code: 'IMAGE_EXTENTS' },
  { name: 'createType twice', base: 'vmdk', change: words(/createType/, 'createType="vmfs"\ncreateType'), code: 'IMAGE_CORRUPT' },
  { name: 'parent by CID', base: 'vmdk', change: words('parentCID=ffffffff', 'parentCID=12345678'), code: 'IMAGE_BACKING_FILE' },
  {
    name: 'parent by name',
    base: 'vmdk',
    change: words(/createType/, 'parentFileNameHint="/etc/passwd"\ncreateType'),
    code: 'IMAGE_BACKING_FILE',
  },
  {
    name: 'parent named where qemu looks, with the descriptor elsewhere',
    base: 'vmdk',
    change: b => {
      const good = Buffer.from(b.subarray(DESCRIPTOR, DESCRIPTOR + 10240));
      words(/createType/, 'parentFileNameHint="/etc/passwd"\ncreateType')(b);
      const whole = Buffer.alloc(Math.ceil(b.length / 512) * 512);
      b.copy(whole);
      whole.writeBigUInt64LE(BigInt(whole.length / 512), 28);
      return Buffer.concat([whole, good]);
    },
    code: 'IMAGE_BACKING_FILE',
  },
  { name: 'version 4', base: 'vmdk', change: le32(4, 4), code: 'IMAGE_FEATURE_UNKNOWN' },
  { name: 'unknown compression', base: 'stream', change: u16(77, 2), code: 'IMAGE_FEATURE_UNKNOWN' },
  { name: 'grain of 0 sectors', base: 'vmdk', change: le64(20, 0n), code: 'IMAGE_CORRUPT' },
  { name: 'grain of 2^63 sectors', base: 'vmdk', change: le64(20, 2n ** 63n), code: 'IMAGE_CORRUPT' },
  { name: 'grain tables of no entries', base: 'vmdk', change: le32(44, 0), code: 'IMAGE_CORRUPT' },
  { name: 'grain tables of 2^32-1 entries', base: 'vmdk', change: le32(44, 0xffff_ffff), code: 'IMAGE_CORRUPT' },
  { name: 'descriptor of 2^40 sectors', base: 'vmdk', change: le64(36, 2n ** 40n), code: 'IMAGE_CORRUPT' },
  { name: 'descriptor outside of the file', base: 'vmdk', change: le64(28, 2n ** 40n), code: 'IMAGE_TRUNCATED' },
  { name: 'capacity of 2^63 sectors', base: 'vmdk', change: le64(12, 2n ** 63n), code: 'IMAGE_TOO_LARGE' },
  { name: 'grain directory outside of the file', base: 'vmdk', change: le64(56, 2n ** 40n), code: 'IMAGE_TRUNCATED' },
  { name: 'redundant grain directory outside of the file', base: 'vmdk', change: le64(48, 2n ** 40n), code: 'IMAGE_TRUNCATED' },
  {
    name: 'first grain outside of the file',
    base: 'vmdk',
    change: le64(64, 2n ** 40n),
    says: /first grain/,
    code: 'IMAGE_TRUNCATED',
  },
  {
    name: 'grain outside of the file',
    base: 'vmdk',
    change: b => void b.writeUInt32LE(0x7fff_ffff, b.readUInt32LE(b.readUInt32LE(56) * 512) * 512),
    says: /a grain takes/,
    code: 'IMAGE_TRUNCATED',
  },
  {
    name: 'footer that is not at a whole sector',
    base: 'stream',
    change: all(
      footer(() => undefined),
      add('x'),
    ),
    says: /footer is not/,
    code: 'IMAGE_TRUNCATED',
  },
  { name: 'grain directory on the header', base: 'vmdk', change: le64(56, 0n), code: 'IMAGE_CORRUPT' },
  {
    name: 'grain table outside of the file',
    base: 'vmdk',
    change: b => void b.writeUInt32LE(0x7fff_ffff, b.readUInt32LE(56) * 512),
    code: 'IMAGE_TRUNCATED',
  },
  { name: 'sent as text', base: 'vmdk', change: text(73, '\n \n\n'), code: 'IMAGE_CORRUPT' },
  { name: 'footer that is not there', base: 'stream', change: le64(56, 2n ** 64n - 1n), code: 'IMAGE_TRUNCATED' },
  { name: 'footer with another size', base: 'stream', change: footer(le64(12, 2048n)), code: 'IMAGE_CORRUPT' },
  {
    name: 'footer with a directory outside of the file',
    base: 'stream',
    change: footer(le64(56, 2n ** 40n)),
    code: 'IMAGE_TRUNCATED',
  },
  { name: 'footer that sends to a footer', base: 'stream', change: footer(le64(56, 2n ** 64n - 1n)), code: 'IMAGE_CORRUPT' },
  { name: 'footer of version 9', base: 'stream', change: footer(le32(4, 9)), code: 'IMAGE_FEATURE_UNKNOWN' },
  { name: 'an MBR in its unused bytes', base: 'vmdk', change: mbr, code: 'IMAGE_AMBIGUOUS' },
  { name: 'old ESX sparse', base: 'raw', change: text(0, 'COWD'), code: 'IMAGE_FORMAT_UNKNOWN' },
  // vhdx
  { name: 'parent bit', base: 'vhdx', change: le32(ITEM.parameters + 4, 2), code: 'IMAGE_BACKING_FILE' },
  {
    name: 'parent locator',
    base: 'vhdx',
    change: b => void b.write('2d5fd3a80bb34d45abf7d3d84834ab0c', METADATA + 64, 'hex'),
    code: 'IMAGE_BACKING_FILE',
  },
  { name: 'block that needs a parent', base: 'vhdx', change: le32(BAT, 7), code: 'IMAGE_BACKING_FILE' },
  { name: 'block in an unknown state', base: 'vhdx', change: le32(BAT, 5), code: 'IMAGE_CORRUPT' },
  { name: 'block outside of the file', base: 'vhdx', change: le64(BAT, (2n ** 50n) | 6n), code: 'IMAGE_TRUNCATED' },
  { name: 'block on the headers', base: 'vhdx', change: le64(BAT, 6n), code: 'IMAGE_CORRUPT' },
  {
    name: 'both headers damaged',
    base: 'vhdx',
    change: all(le32(HEADERS[0]! + 100, 1), le32(HEADERS[1]! + 100, 1)),
    code: 'IMAGE_CORRUPT',
  },
  { name: 'log to be replayed', base: 'vhdx', change: bothHeaders(at => le32(at + 48, 1)), code: 'IMAGE_CORRUPT' },
  { name: 'log outside of the file', base: 'vhdx', change: bothHeaders(at => le64(at + 72, 2n ** 40n)), code: 'IMAGE_TRUNCATED' },
  {
    name: 'log on the metadata',
    base: 'vhdx',
    change: bothHeaders(at => le64(at + 72, BigInt(METADATA))),
    code: 'IMAGE_CORRUPT',
  },
  { name: 'version 2', base: 'vhdx', change: bothHeaders(at => u16(at + 66, 2)), code: 'IMAGE_FEATURE_UNKNOWN' },
  { name: 'region table damaged', base: 'vhdx', change: le32(REGIONS + 1000, 1), code: 'IMAGE_CORRUPT' },
  { name: 'region table of 2^32-1 entries', base: 'vhdx', change: sealed(le32(REGIONS + 8, 0xffff_ffff)), code: 'IMAGE_CORRUPT' },
  {
    name: 'unknown region that is required',
    base: 'vhdx',
    change: sealed(all(le32(REGIONS + 8, 3), le32(REGIONS + 80, 99), le32(REGIONS + 108, 1))),
    code: 'IMAGE_FEATURE_UNKNOWN',
  },
  {
    name: 'metadata region outside of the file',
    base: 'vhdx',
    change: sealed(le64(REGIONS + 64, 2n ** 40n)),
    code: 'IMAGE_TRUNCATED',
  },
  {
    name: 'block table twice',
    base: 'vhdx',
    change: sealed(b => b.copyWithin(REGIONS + 16, REGIONS + 48, REGIONS + 80)),
    code: 'IMAGE_CORRUPT',
  },
  {
    name: 'metadata of 65535 entries',
    base: 'vhdx',
    change: u16(METADATA + 10, 0xffff),
    says: /65535 entries/,
    code: 'IMAGE_CORRUPT',
  },
  {
    name: 'metadata item twice',
    base: 'vhdx',
    change: b => b.copyWithin(METADATA + 64, METADATA + 32, METADATA + 64),
    says: /is there twice/,
    code: 'IMAGE_CORRUPT',
  },
  {
    name: 'metadata without its last item',
    base: 'vhdx',
    change: u16(METADATA + 10, 4),
    says: /lacks its physicalSector/,
    code: 'IMAGE_CORRUPT',
  },
  {
    name: 'sectors of 1 KiB',
    base: 'vhdx',
    change: le32(METADATA + 65536 + 32, 1024),
    says: /sectors of 1024/,
    code: 'IMAGE_CORRUPT',
  },
  {
    name: 'region table without metadata',
    base: 'vhdx',
    change: sealed(le32(REGIONS + 8, 1)),
    says: /lacks metadata/,
    code: 'IMAGE_CORRUPT',
  },
  {
    name: 'region that is not aligned',
    base: 'vhdx',
    change: sealed(le64(REGIONS + 32, 0x20_0200n)),
    says: /cannot be/,
    code: 'IMAGE_CORRUPT',
  },
  { name: 'metadata with another signature', base: 'vhdx', change: text(METADATA, 'METADATA'), code: 'IMAGE_CORRUPT' },
  { name: 'metadata without entries', base: 'vhdx', change: u16(METADATA + 10, 0), code: 'IMAGE_CORRUPT' },
  { name: 'unknown metadata that is required', base: 'vhdx', change: le32(METADATA + 32, 99), code: 'IMAGE_FEATURE_UNKNOWN' },
  { name: 'metadata item outside of its region', base: 'vhdx', change: le32(METADATA + 48, 0xffff_fff0), code: 'IMAGE_CORRUPT' },
  { name: 'blocks of 3 MiB', base: 'vhdx', change: le32(ITEM.parameters, 3 * 2 ** 20), code: 'IMAGE_CORRUPT' },
  { name: 'blocks of 0 bytes', base: 'vhdx', change: le32(ITEM.parameters, 0), code: 'IMAGE_CORRUPT' },
  { name: 'virtual size 2^63', base: 'vhdx', change: le64(ITEM.size, 2n ** 63n), code: 'IMAGE_TOO_LARGE' },
  { name: 'virtual size 0', base: 'vhdx', change: le64(ITEM.size, 0n), code: 'IMAGE_CORRUPT' },
  {
    name: 'virtual size that its block table does not reach',
    base: 'vhdx',
    change: le64(ITEM.size, 2n ** 43n),
    code: 'IMAGE_CORRUPT',
  },
  { name: 'an ISO in its unused bytes', base: 'vhdx', change: text(0x8001, 'CD001'), code: 'IMAGE_AMBIGUOUS' },
  { name: 'cut in its headers', base: 'vhdx', change: cut(1000), code: 'IMAGE_TRUNCATED' },
  // vdi
  { name: 'differencing', base: 'vdi', change: le32(0x4c, 4), code: 'IMAGE_BACKING_FILE' },
  { name: 'undo', base: 'vdi', change: le32(0x4c, 3), code: 'IMAGE_BACKING_FILE' },
  { name: 'unknown type', base: 'vdi', change: le32(0x4c, 77), code: 'IMAGE_FEATURE_UNKNOWN' },
  { name: 'parent UUID', base: 'vdi', change: le32(0x1b8, 1), code: 'IMAGE_BACKING_FILE' },
  { name: 'link UUID', base: 'vdi', change: le32(0x1a8, 1), code: 'IMAGE_BACKING_FILE' },
  { name: 'version 2', base: 'vdi', change: le32(0x44, 0x0002_0000), code: 'IMAGE_FEATURE_UNKNOWN' },
  { name: 'blocks of 2 MiB', base: 'vdi', change: le32(0x178, 2 ** 21), code: 'IMAGE_FEATURE_UNKNOWN' },
  { name: 'virtual size 2^63', base: 'vdi', change: le64(0x170, 2n ** 63n), code: 'IMAGE_TOO_LARGE' },
  { name: 'virtual size that its blocks do not reach', base: 'vdi', change: le64(0x170, 2n ** 40n), code: 'IMAGE_CORRUPT' },
  {
    name: 'more blocks there than it has',
    base: 'vdi',
    change: le32(0x184, 0x7fff_ffff),
    says: /are said to be there/,
    code: 'IMAGE_CORRUPT',
  },
  { name: '2^32-1 blocks', base: 'vdi', change: le32(0x180, 0xffff_ffff), code: 'IMAGE_CORRUPT' },
  { name: 'block map on the header', base: 'vdi', change: le32(0x154, 0), says: /block map cannot lie/, code: 'IMAGE_CORRUPT' },
  { name: 'block map on the data', base: 'vdi', change: le32(0x158, 0x200), code: 'IMAGE_CORRUPT' },
  { name: 'data outside of the file', base: 'vdi', change: le32(0x158, 0xffff_fe00), code: 'IMAGE_TRUNCATED' },
  { name: 'block beyond the allocated', base: 'vdi', change: le32(0x200, 0x1234), code: 'IMAGE_CORRUPT' },
  { name: 'one block for all of the disk (a bomb)', base: 'vdi', change: b => b.fill(0, 0x200, 0x220), code: 'IMAGE_CORRUPT' },
  { name: 'an MBR in its unused bytes', base: 'vdi', change: all(mbr, b => b.fill(0, 446, 510)), code: 'IMAGE_AMBIGUOUS' },
  { name: 'a qcow2 in its first bytes', base: 'vdi', change: text(0, 'QFI\xfb\0\0\0\x03'), code: 'IMAGE_AMBIGUOUS' },
  // what else qemu would open
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
  { name: 'noise, declared qcow2', base: 'raw', change: b => b.fill('noise'), declared: 'qcow2', code: 'IMAGE_FORMAT_MISMATCH' },
  { name: 'nothing', base: 'raw', change: cut(0), declared: 'raw', code: 'IMAGE_TRUNCATED' },
];

describe('a hostile or broken image is refused with its own code', () => {
  let dir: string;
  const bases = new Map<Base, Buffer>();
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'cistern-hostile-'));
    for (const [base, options] of Object.entries(BASES)) {
      const path = join(dir, base);
      const format = options[1] ?? '';
      await exec('qemu-img', ['create', '-q', ...options, path, '3G']);
      await exec('qemu-io', ['-f', format, '-c', 'write -q 0 64k', '-c', 'write -q 1G 64k', '-c', 'write -q 2G 64k', path]);
      assert.equal((await inspectImage(path, { maxVirtualSize: MAX })).virtualSize, 3 * 2 ** 30, base);
      bases.set(base as Base, await readFile(path));
    }
    bases.set('raw', Buffer.alloc(2 ** 20));
  });
  after(() => rm(dir, { recursive: true, force: true }));

  for (const { name, base, change, code, says, declared } of HOSTILE) {
    it(`${base}: ${name} is ${code}`, async () => {
      const path = join(dir, 'hostile');
      const bytes = Buffer.from(bases.get(base)!);
      await writeFile(path, change(bytes) ?? bytes);
      await assert.rejects(inspectImage(path, { declared, maxVirtualSize: MAX }), {
        name: 'CisternError',
        code,
        message: says ?? /inspecting/,
      });
    });
  }

  it('while a stream-optimized VMDK with an honest footer passes', async () => {
    const path = join(dir, 'footer.vmdk');
    await writeFile(path, footer(() => undefined)(Buffer.from(bases.get('stream')!)) as Buffer);
    assert.equal((await inspectImage(path, { maxVirtualSize: MAX })).virtualSize, 3 * 2 ** 30);
    const info = await exec('qemu-img', ['info', '-f', 'vmdk', path]);
    assert.match(info.stdout, /3 GiB/);
  });

  it('as are a link, a FIFO, a folder and what is not there: they are never read', async () => {
    await symlink(join(dir, 'qcow2'), join(dir, 'link'));
    await exec('mkfifo', [join(dir, 'fifo')]);
    for (const name of ['link', 'fifo', '.', 'missing']) {
      await assert.rejects(
        inspectImage(join(dir, name), { maxVirtualSize: MAX }),
        { name: 'CisternError', code: 'IO_ERROR' },
        name,
      );
    }
  });

  it('and no bytes crash the judge: each field of each header with wild values, each early end', async () => {
    const path = join(dir, 'wild');
    let seed = 1;
    const random = (n: number) => (seed = (seed * 48271) % 2147483647) % n;
    const hot = {
      qcow2: [0, 112],
      v2: [0, 72],
      x: [0, 112],
      vmdk: [0, 1024],
      stream: [0, 1024],
      vhdx: [METADATA, METADATA + 65600],
      vdi: [0, 640],
      raw: [0, 600],
    };
    for (const [base, [from, to]] of Object.entries(hot) as [Base, [number, number]][]) {
      for (let i = 0; i < 60; i++) {
        const bytes = Buffer.from(bases.get(base)!.subarray(0, i % 3 === 0 ? random(to + 4096) + 1 : undefined));
        for (let change = 0; change < 1 + (i % 4); change++) {
          const at = Math.max(0, Math.min(bytes.length - 4, from + random(to - from)));
          if (bytes.length >= 4)
            bytes.writeUInt32LE([0, 1, 0xffff_ffff, 0x7fff_ffff, 0x8000_0000, random(2 ** 31)][random(6)]!, at);
        }
        await writeFile(path, bytes);
        const error = await inspectImage(path, { maxVirtualSize: MAX }).then(
          () => undefined,
          (thrown: unknown) => thrown as { code?: string; stack?: string },
        );
        if (error) assert.match(error.code ?? '', /^IMAGE_/, `${base} ${i}: ${error.stack}`);
      }
    }
  });
});
