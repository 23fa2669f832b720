import assert from 'node:assert/strict';
import { add, all, cut, le32, le64, mbr, text, u16, type Change, type Crafted } from './image.ts';

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

export const VMDK: Crafted[] = [
  {
    name: 'text descriptor that names /etc/passwd',
    base: 'raw',
    change: () => Buffer.from('# Disk DescriptorFile\n\nversion=1\ncreateType="monolithicFlat"\nRW 8 FLAT "/etc/passwd" 0\n'),
    code: 'IMAGE_EXTENT_PATH',
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
  { name: 'absolute extent', base: 'vmdk', change: words(/SPARSE "[^"]*"/, 'SPARSE "/dev/sda"'), code: 'IMAGE_EXTENT_PATH' },
  {
    name: 'extent in the folder above',
    base: 'stream',
    change: words(/SPARSE "[^"]*"/, 'SPARSE "..\\x"'),
    code: 'IMAGE_EXTENT_PATH',
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
  { name: 'descriptor outside of the file', base: 'vmdk', change: le64(28, 2n ** 40n), code: 'IMAGE_OUTSIDE' },
  { name: 'capacity of 2^63 sectors', base: 'vmdk', change: le64(12, 2n ** 63n), code: 'IMAGE_TOO_LARGE' },
  { name: 'grain directory outside of the file', base: 'vmdk', change: le64(56, 2n ** 40n), code: 'IMAGE_OUTSIDE' },
  { name: 'redundant grain directory outside of the file', base: 'vmdk', change: le64(48, 2n ** 40n), code: 'IMAGE_OUTSIDE' },
  {
    name: 'first grain outside of the file',
    base: 'vmdk',
    change: le64(64, 2n ** 40n),
    says: /first grain/,
    code: 'IMAGE_OUTSIDE',
  },
  {
    name: 'grain outside of the file',
    base: 'vmdk',
    change: b => void b.writeUInt32LE(0x7fff_ffff, b.readUInt32LE(b.readUInt32LE(56) * 512) * 512),
    says: /a grain takes/,
    code: 'IMAGE_OUTSIDE',
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
    code: 'IMAGE_OUTSIDE',
  },
  { name: 'sent as text', base: 'vmdk', change: text(73, '\n \n\n'), code: 'IMAGE_CORRUPT' },
  { name: 'footer that is not there', base: 'stream', change: le64(56, 2n ** 64n - 1n), code: 'IMAGE_TRUNCATED' },
  { name: 'footer with another size', base: 'stream', change: footer(le64(12, 2048n)), code: 'IMAGE_CORRUPT' },
  {
    name: 'footer with a directory outside of the file',
    base: 'stream',
    change: footer(le64(56, 2n ** 40n)),
    code: 'IMAGE_OUTSIDE',
  },
  { name: 'footer that sends to a footer', base: 'stream', change: footer(le64(56, 2n ** 64n - 1n)), code: 'IMAGE_CORRUPT' },
  { name: 'footer of version 9', base: 'stream', change: footer(le32(4, 9)), code: 'IMAGE_FEATURE_UNKNOWN' },
  { name: 'an MBR in its unused bytes', base: 'vmdk', change: mbr, code: 'IMAGE_AMBIGUOUS' },
  { name: 'old ESX sparse', base: 'raw', change: text(0, 'COWD'), code: 'IMAGE_FORMAT_UNKNOWN' },
  { name: 'an honest footer', base: 'stream', change: footer(() => undefined), code: null },
  {
    name: 'one grain table for all of the disk (a bomb)',
    base: 'vmdk',
    change: b => {
      const directory = b.readUInt32LE(56) * 512;
      for (let at = 4; at < 96 * 4; at += 4) b.copyWithin(directory + at, directory, directory + 4);
    },
    says: /used twice/,
    code: 'IMAGE_CORRUPT',
  },
  {
    name: '2 TiB in 640 KiB: grains of 1 GiB',
    base: 'vmdk',
    change: all(le64(12, 2n ** 35n), le64(20, 2n ** 21n), le32(44, 512), b =>
      b.fill(0, b.readUInt32LE(56) * 512, b.readUInt32LE(56) * 512 + 128),
    ),
    code: null,
  },
  {
    name: '16 TiB in 192 KiB: grains of 1 GiB',
    base: 'vmdk',
    change: all(
      b => b.fill(0, 191 * 1024, 192 * 1024),
      cut(192 * 1024),
      le32(8, 1), // no second directory
      le64(12, 2n ** 35n),
      le64(20, 2n ** 21n),
      le64(56, 382n),
      le64(64, 0n),
    ),
    code: 'IMAGE_EXPANSION',
  },
  { name: 'extent of a device', base: 'vmdk', change: words(/SPARSE "[^"]*"/, 'VMFSRDM "x.vmdk" 0'), code: 'IMAGE_EXTENTS' },
  {
    name: 'extent named by a path, of another kind',
    base: 'vmdk',
    change: words(/SPARSE "[^"]*"/, 'FLAT "/etc/passwd" 0'),
    code: 'IMAGE_EXTENT_PATH',
  },
];
