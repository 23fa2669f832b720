import { all, le32, le64, mbr, text, type Crafted } from './image.ts';

export const VDI: Crafted[] = [
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
  { name: 'data outside of the file', base: 'vdi', change: le32(0x158, 0xffff_fe00), code: 'IMAGE_OUTSIDE' },
  { name: 'block beyond the allocated', base: 'vdi', change: le32(0x200, 0x1234), code: 'IMAGE_CORRUPT' },
  { name: 'one block for all of the disk (a bomb)', base: 'vdi', change: b => b.fill(0, 0x200, 0x220), code: 'IMAGE_CORRUPT' },
  { name: 'an MBR in its unused bytes', base: 'vdi', change: all(mbr, b => b.fill(0, 446, 510)), code: 'IMAGE_AMBIGUOUS' },
  { name: 'a qcow2 in its first bytes', base: 'vdi', change: text(0, 'QFI\xfb\0\0\0\x03'), code: 'IMAGE_AMBIGUOUS' },
];
