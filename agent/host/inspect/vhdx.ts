import { CisternError } from '../../../shared/errors.ts';
import { crc32c } from './crc32c.ts';
import { requireInside, requireSound, u64le } from './file.ts';
import type { Bounds, ImageFile, Judge } from './file.ts';
import { readTable, requireDistinct } from './tables.ts';
import { readMetadata } from './vhdx-metadata.ts';
import type { Disk } from './vhdx-metadata.ts';

const MIB = 2 ** 20;
/** What headers, log, metadata and block table of a disk take at most in an honest file. */
const TABLES = 2 ** 32;
const BAT = '6677c22d23f600429d64115e9bfd4a08';
const METADATA = '06a27c8b90479a4bb8fe575f050f886e';
/** States of a payload block in the BAT ([MS-VHDX] 2.5.1.1). */
const BLOCK_STATE = { fullyPresent: 6, partiallyPresent: 7 };

interface Region {
  what: string;
  offset: number;
  length: number;
}

/** Judges a VHDX without parent by its headers, region table, metadata and block table ([MS-VHDX]). */
export const judgeVhdx: Judge = async (image, maxVirtualSize) => {
  const log = await readLog(image);
  const regions = await readRegions(image);
  const metadata = regions.get(METADATA);
  const bat = regions.get(BAT);
  requireSound(metadata !== undefined && bat !== undefined, 'the region table lacks metadata or block table');
  const { size } = image;
  requireInside({ size, whole: TABLES }, metadata.offset, metadata.length, metadata.what);
  const disk = await readMetadata(image, metadata.offset, metadata.length, maxVirtualSize);
  const bounds = { size, whole: TABLES + disk.virtualSize };
  checkRegions([...regions.values(), log], bounds);
  await checkBlocks(image, bat, disk, bounds);
  // behind the signature comes the name of the program that made it, in UTF-16, and then nothing
  return { virtualSize: disk.virtualSize, quiet: [256, 65536] };
};

/** Regions lie on whole MiB inside the file, and none on another. */
function checkRegions(regions: Region[], bounds: Bounds): void {
  const all = regions.filter(region => region.length > 0).sort((a, b) => a.offset - b.offset);
  all.forEach(({ what, offset, length }, i) => {
    requireSound(
      offset >= MIB && offset % MIB === 0 && length % MIB === 0,
      `${what} cannot be ${length} bytes at byte ${offset}`,
    );
    requireInside(bounds, offset, length, what);
    const before = all[i - 1];
    requireSound(before === undefined || before.offset + before.length <= offset, `${what} lies on ${before?.what}`);
  });
}

/** The newer of the two headers with a right checksum says where the log is; a log that must be replayed first is refused. */
async function readLog(image: ImageFile): Promise<Region> {
  const valid: { sequence: bigint; b: Buffer }[] = [];
  for (const at of [64 * 1024, 128 * 1024]) {
    const b = await image.read(at, 4096, 'a header');
    const sound = b.toString('latin1', 0, 4) === 'head' && crc32c(b, 4) === b.readUInt32LE(4);
    if (sound) valid.push({ sequence: b.readBigUInt64LE(8), b });
  }
  const [one, two] = valid;
  const current = one && two && two.sequence > one.sequence ? two : one;
  requireSound(current !== undefined, 'neither of its headers has a right checksum');
  const { b } = current;
  const [logVersion, version] = [b.readUInt16LE(64), b.readUInt16LE(66)];
  if (logVersion !== 0 || version !== 1)
    throw new CisternError('IMAGE_FEATURE_UNKNOWN', `VHDX version ${version}, log version ${logVersion}`);
  requireSound(
    b.subarray(48, 64).every(byte => byte === 0),
    'its log was not replayed: attach and detach it once where it was made',
  );
  return { what: 'the log', offset: u64le(b, 72), length: b.readUInt32LE(68) };
}

/** Regions by their GUID (hex of the bytes as they stand in the file). */
async function readRegions(image: ImageFile): Promise<Map<string, Region>> {
  const b = await image.read(192 * 1024, 64 * 1024, 'the region table');
  requireSound(
    b.toString('latin1', 0, 4) === 'regi' && crc32c(b, 4) === b.readUInt32LE(4),
    'the region table has a wrong checksum',
  );
  const count = b.readUInt32LE(8);
  requireSound(count <= 2047, `the region table has ${count} entries`);
  const regions = new Map<string, Region>();
  for (let at = 16; at < 16 + count * 32; at += 32) {
    const guid = b.toString('hex', at, at + 16);
    const known = guid === BAT || guid === METADATA;
    const required = (b.readUInt32LE(at + 28) & 1) !== 0;
    if (!known && required) throw new CisternError('IMAGE_FEATURE_UNKNOWN', `it requires a region of unknown kind ${guid}`);
    requireSound(!regions.has(guid), `region ${guid} is there twice`);
    const what = guid === BAT ? 'the block table' : guid === METADATA ? 'the metadata' : `region ${guid}`;
    regions.set(guid, { what, offset: u64le(b, at + 16), length: b.readUInt32LE(at + 24) });
  }
  return regions;
}

/** Every block that is there lies inside the file, no two in one place. After each `chunk` payload entries stands one for a sector bitmap, unused here. */
async function checkBlocks(image: ImageFile, bat: Region, disk: Disk, bounds: Bounds): Promise<void> {
  const blocks = Math.ceil(disk.virtualSize / disk.blockSize);
  const chunk = (2 ** 23 * disk.sectorSize) / disk.blockSize;
  const entries = blocks + Math.floor((blocks - 1) / chunk);
  requireSound(entries * 8 <= bat.length, `the block table has room for ${bat.length / 8} entries, the disk needs ${entries}`);
  const parts = await readTable(image, bat.offset, entries * 8, 8, 'the block table');
  const places: number[] = [];
  for (const { first, bytes } of parts) {
    for (let at = 0; at + 8 <= bytes.length; at += 8) {
      const index = first + at / 8;
      if (index % (chunk + 1) === chunk) continue;
      const state = bytes.readUInt8(at) & 7;
      if (state === BLOCK_STATE.partiallyPresent) throw new CisternError('IMAGE_BACKING_FILE', `block ${index} needs a parent`);
      requireSound(state <= 3 || state === BLOCK_STATE.fullyPresent, `block ${index} is in the unknown state ${state}`);
      if (state !== BLOCK_STATE.fullyPresent) continue;
      const offset = Math.floor(u64le(bytes, at) / MIB) * MIB;
      requireSound(offset >= MIB, `block ${index} lies on the headers`);
      requireInside(bounds, offset, disk.blockSize, `block ${index}`);
      places.push(offset);
    }
  }
  requireDistinct(places, 'the block at byte');
}
