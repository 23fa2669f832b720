import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { inspectImage } from '../../agent/host/inspect.ts';
import {
  add,
  all,
  eachIsRefused,
  exec,
  honestImages,
  le32,
  le64,
  MAX,
  mbr,
  text,
  u16,
  type Change,
  type Hostile,
} from './hostile-images.ts';

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

const HOSTILE: Hostile[] = [
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
];

describe('a hostile or broken VMDK is refused with its own code', () => {
  const honest = honestImages('vmdk', 'stream');
  eachIsRefused(honest, HOSTILE);

  it('while a stream-optimized VMDK with an honest footer passes', async () => {
    const path = join(honest.dir, 'footer.vmdk');
    await writeFile(path, footer(() => undefined)(honest.bytes('stream')) as Buffer);
    assert.equal((await inspectImage(path, { maxVirtualSize: MAX })).virtualSize, 3 * 2 ** 30);
    const info = await exec('qemu-img', ['info', '-f', 'vmdk', path]);
    assert.match(info.stdout, /3 GiB/);
  });
});
