import { all, be32, be64, cut, mbr, text, type Change, type Crafted } from './image.ts';

/** A qcow2 header extension put in front of those that are there. */
const ext =
  (type: number, data: string, length = data.length): Change =>
  b => {
    const start = b.readUInt32BE(4) === 2 ? 72 : b.readUInt32BE(100);
    const size = 8 + Math.ceil(data.length / 8) * 8;
    b.copyWithin(start + size, start, start + 1024);
    b.fill(0, start, start + size);
    b.writeUInt32BE(type, start);
    b.writeUInt32BE(length, start + 4);
    b.write(data, start + 8, 'latin1');
  };

/** Fills `length` bytes behind the header with an extension that means nothing. */
const extend = (b: Buffer, length: number): void => {
  const start = b.readUInt32BE(100);
  b.fill(0, start, start + length);
  b.writeUInt32BE(0x12345678, start);
  b.writeUInt32BE(length - 8, start + 4);
};

const l1 = (b: Buffer) => Number(b.readBigUInt64BE(40));

export const QCOW2: Crafted[] = [
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
    code: 'IMAGE_OUTSIDE',
  },
  {
    name: 'L2 table outside of the file',
    base: 'qcow2',
    change: b => void b.writeBigUInt64BE(2n ** 55n, l1(b)),
    code: 'IMAGE_OUTSIDE',
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
    code: 'IMAGE_OUTSIDE',
  },
  { name: 'refcount table that is not aligned', base: 'qcow2', change: be64(48, 0x1_0001n), code: 'IMAGE_CORRUPT' },
  { name: 'refcount table of no clusters', base: 'qcow2', change: be32(56, 0), code: 'IMAGE_CORRUPT' },
  { name: 'refcount table of 2^32-1 clusters', base: 'qcow2', change: be32(56, 0xffff_ffff), code: 'IMAGE_CORRUPT' },
  { name: 'refcount block outside of the file', base: 'qcow2', change: be64(0x1_0008, 2n ** 40n), code: 'IMAGE_OUTSIDE' },
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
  {
    name: 'header extensions without an end',
    base: 'x',
    change: b => extend(b, 4096 - 112),
    says: /have no end/,
    code: 'IMAGE_CORRUPT',
  },
  { name: 'a backing format without a backing file', base: 'qcow2', change: ext(0xe2792aca, 'raw'), code: null },
  { name: 'an unknown header extension', base: 'qcow2', change: ext(0x12345678, '/etc/passwd'), code: null },
  {
    name: 'unknown compatible and auto-clear bits',
    base: 'qcow2',
    change: all(be64(80, 2n ** 63n), be64(88, 2n ** 63n)),
    code: null,
  },
  { name: 'compressed with zstd', base: 'zstd', change: () => undefined, code: null },
  {
    name: 'external data file with its name',
    base: 'qcow2',
    change: all(be64(72, 4n), ext(0x44415441, '/etc/shadow')),
    code: 'IMAGE_DATA_FILE',
  },
  { name: 'a version 2 that names a data file', base: 'v2', change: ext(0x44415441, '/etc/shadow'), code: 'IMAGE_DATA_FILE' },
  {
    name: 'backing file over the network',
    base: 'qcow2',
    change: all(be64(8, 0x300n), be32(16, 21), text(0x300, 'nbd://169.254.169.254')),
    code: 'IMAGE_BACKING_FILE',
  },
  { name: 'a snapshot', base: 'qcow2', change: be32(60, 1), code: 'IMAGE_SNAPSHOTS' },
  {
    name: 'all data clusters are one (a bomb that conversion bounds)',
    base: 'qcow2',
    change: b => {
      const l2 = Number(b.readBigUInt64BE(l1(b)) & 0x00ff_ffff_ffff_fe00n);
      for (let at = 8; at < 0x1_0000; at += 8) b.copyWithin(l2 + at, l2, l2 + 8);
    },
    code: null,
  },
  { name: 'an L1 table of 16 MiB', base: 'wide', change: () => undefined, code: null },
  {
    name: 'an L1 table of 16 MiB whose last entry points outside of the file',
    base: 'wide',
    change: b => void b.writeBigUInt64BE(2n ** 40n, l1(b) + 8 * (b.readUInt32BE(36) - 1)),
    code: 'IMAGE_OUTSIDE',
  },
  {
    name: 'one L2 table at both ends of an L1 table of 16 MiB',
    base: 'wide',
    change: b => {
      b.writeBigUInt64BE(512n, l1(b));
      b.writeBigUInt64BE(512n, l1(b) + 8 * (b.readUInt32BE(36) - 1));
    },
    says: /used twice/,
    code: 'IMAGE_CORRUPT',
  },
];
