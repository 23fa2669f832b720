import { crc32c } from '../../../agent/host/inspect/crc32c.ts';
import { all, cut, le32, le64, text, u16, VHDX_METADATA, type Change, type Crafted } from './image.ts';

const HEADERS = [65536, 131072];
const REGIONS = 196608;
/** Where qemu's VHDX has its block table, and the metadata items, from the start of the file. */
const BAT = 0x20_0000;
const ITEM = { parameters: VHDX_METADATA + 65536, size: VHDX_METADATA + 65536 + 8 };
/** Changes checksummed parts of a VHDX and makes their checksums right again. */
const sealed =
  (change: Change): Change =>
  b => {
    change(b);
    for (const at of HEADERS) b.writeUInt32LE(crc32c(b.subarray(at, at + 4096), 4), at + 4);
    b.writeUInt32LE(crc32c(b.subarray(REGIONS, REGIONS + 65536), 4), REGIONS + 4);
  };
const bothHeaders = (change: (at: number) => Change): Change => sealed(all(...HEADERS.map(change)));

export const VHDX: Crafted[] = [
  { name: 'parent bit', base: 'vhdx', change: le32(ITEM.parameters + 4, 2), code: 'IMAGE_BACKING_FILE' },
  {
    name: 'parent locator',
    base: 'vhdx',
    change: b => void b.write('2d5fd3a80bb34d45abf7d3d84834ab0c', VHDX_METADATA + 64, 'hex'),
    code: 'IMAGE_BACKING_FILE',
  },
  { name: 'block that needs a parent', base: 'vhdx', change: le32(BAT, 7), code: 'IMAGE_BACKING_FILE' },
  { name: 'block in an unknown state', base: 'vhdx', change: le32(BAT, 5), code: 'IMAGE_CORRUPT' },
  { name: 'block outside of the file', base: 'vhdx', change: le64(BAT, (2n ** 50n) | 6n), code: 'IMAGE_OUTSIDE' },
  { name: 'block on the headers', base: 'vhdx', change: le64(BAT, 6n), code: 'IMAGE_CORRUPT' },
  {
    name: 'both headers damaged',
    base: 'vhdx',
    change: all(le32(HEADERS[0]! + 100, 1), le32(HEADERS[1]! + 100, 1)),
    code: 'IMAGE_CORRUPT',
  },
  { name: 'log to be replayed', base: 'vhdx', change: bothHeaders(at => le32(at + 48, 1)), code: 'IMAGE_CORRUPT' },
  { name: 'log outside of the file', base: 'vhdx', change: bothHeaders(at => le64(at + 72, 2n ** 40n)), code: 'IMAGE_OUTSIDE' },
  {
    name: 'log on the metadata',
    base: 'vhdx',
    change: bothHeaders(at => le64(at + 72, BigInt(VHDX_METADATA))),
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
    code: 'IMAGE_OUTSIDE',
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
    change: u16(VHDX_METADATA + 10, 0xffff),
    says: /65535 entries/,
    code: 'IMAGE_CORRUPT',
  },
  {
    name: 'metadata item twice',
    base: 'vhdx',
    change: b => b.copyWithin(VHDX_METADATA + 64, VHDX_METADATA + 32, VHDX_METADATA + 64),
    says: /is there twice/,
    code: 'IMAGE_CORRUPT',
  },
  {
    name: 'metadata without its last item',
    base: 'vhdx',
    change: u16(VHDX_METADATA + 10, 4),
    says: /lacks its physicalSector/,
    code: 'IMAGE_CORRUPT',
  },
  {
    name: 'sectors of 1 KiB',
    base: 'vhdx',
    change: le32(VHDX_METADATA + 65536 + 32, 1024),
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
  { name: 'metadata with another signature', base: 'vhdx', change: text(VHDX_METADATA, 'METADATA'), code: 'IMAGE_CORRUPT' },
  { name: 'metadata without entries', base: 'vhdx', change: u16(VHDX_METADATA + 10, 0), code: 'IMAGE_CORRUPT' },
  {
    name: 'unknown metadata that is required',
    base: 'vhdx',
    change: le32(VHDX_METADATA + 32, 99),
    code: 'IMAGE_FEATURE_UNKNOWN',
  },
  {
    name: 'metadata item outside of its region',
    base: 'vhdx',
    change: le32(VHDX_METADATA + 48, 0xffff_fff0),
    code: 'IMAGE_CORRUPT',
  },
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
  {
    name: 'two blocks in one place',
    base: 'vhdx',
    change: b => b.copyWithin(BAT + 8 * 1024, BAT, BAT + 8),
    says: /used twice/,
    code: 'IMAGE_CORRUPT',
  },
  {
    name: 'its older header damaged',
    base: 'vhdx',
    change: b =>
      void b.fill(0, HEADERS[b.readUInt32LE(HEADERS[0]! + 8) > b.readUInt32LE(HEADERS[1]! + 8) ? 1 : 0]!, HEADERS[0]! + 4096),
    code: null,
  },
];
