import { crc32 } from 'node:zlib';
import { requireInside, u64le } from './file.ts';
import type { ImageFile } from './file.ts';

/** A partition table of more than this was not made by a tool; 16 KiB is usual. */
const MAX_TABLE = 2 ** 20;
/** Old tools let the last partition end with a cylinder, which may be behind the end of the disk. */
const CYLINDER = 255 * 63 * 512;
const TYPE = { empty: 0, protective: 0xee };

/**
 * Finds out whether the end of a raw disk was cut off: a partition of its GPT or MBR reaches beyond it. Tables that are damaged say
 * nothing, and a GPT's backup may be missing: a disk that was made smaller behind its last partition is of use all the same.
 */
export async function checkPartitions(image: ImageFile): Promise<void> {
  for (const sector of [512, 4096]) if (await checkGpt(image, sector)) return;
  await checkMbr(image);
}

/** UEFI specification 2.10, 5.3.2. False where there is no sound GPT for sectors of this size. */
async function checkGpt(image: ImageFile, sector: number): Promise<boolean> {
  if (image.size < 3 * sector) return false;
  const b = Buffer.from(await image.read(sector, 512, 'the GPT'));
  const headerSize = b.readUInt32LE(12);
  if (b.toString('latin1', 0, 8) !== 'EFI PART' || headerSize < 92 || headerSize > 512) return false;
  const [own, sum] = [u64le(b, 24), b.readUInt32LE(16)];
  b.writeUInt32LE(0, 16);
  const [count, length] = [b.readUInt32LE(80), b.readUInt32LE(84)];
  const isSound = crc32(b.subarray(0, headerSize)) === sum && own === 1;
  if (!isSound || length < 128 || length % 8 !== 0 || count * length > MAX_TABLE) return false;
  const bounds = { size: image.size, whole: (u64le(b, 32) + 1) * sector };
  const at = u64le(b, 72) * sector;
  requireInside(bounds, at, count * length, "the GPT's partition table");
  const table = await image.read(at, count * length, "the GPT's partition table");
  if (crc32(table) !== b.readUInt32LE(88)) return false;
  for (let i = 0; i < count; i++) {
    const entry = table.subarray(i * length, (i + 1) * length);
    const [first, last] = [u64le(entry, 32), u64le(entry, 40)];
    if (last < first || entry.subarray(0, 16).every(byte => byte === 0)) continue;
    requireInside(bounds, first * sector, (last + 1 - first) * sector, `partition ${i + 1} of the GPT`);
  }
  return true;
}

/** The four primary partitions, in sectors of 512 bytes: where sectors have 4 KiB, this is too little, but never too much. */
async function checkMbr(image: ImageFile): Promise<void> {
  if (image.size < 512) return;
  const b = await image.read(0, 512, 'the MBR');
  const entries = [446, 462, 478, 494].map(at => ({
    active: b.readUInt8(at),
    type: b.readUInt8(at + 4),
    first: b.readUInt32LE(at + 8),
    sectors: b.readUInt32LE(at + 12),
  }));
  const isTable = b.readUInt16LE(510) === 0xaa55 && entries.every(({ active }) => (active & 0x7f) === 0);
  // The first sector of a file system ends like a table, too, with code or words where the partitions would be.
  const isFileSystem = /^(?:NTFS|EXFAT)/.test(b.toString('latin1', 3, 11)) || /FAT/.test(b.toString('latin1', 54, 90));
  if (!isTable || isFileSystem || entries.some(({ type, sectors }) => (type === TYPE.empty) !== (sectors === 0))) return;
  entries.forEach(({ type, first, sectors }, i) => {
    if (type === TYPE.empty || type === TYPE.protective || first === 0) return;
    const length = Math.max(0, sectors * 512 - CYLINDER);
    requireInside({ size: image.size, whole: Infinity }, first * 512, length, `partition ${i + 1} of the MBR`);
  });
}
