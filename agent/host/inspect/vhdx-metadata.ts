import { CisternError } from '../../../shared/errors.ts';
import { isPowerOfTwo, requireSize, requireSound, u64le } from './file.ts';
import type { ImageFile } from './file.ts';

const TABLE = 64 * 1024;
const MAX_DISK = 64 * 2 ** 40;
const FLAG_REQUIRED = 4;
const HAS_PARENT = 2;

/** Items of the metadata table ([MS-VHDX] 2.6.2) by their GUID, hex of the bytes as they stand in the file, and their length. */
const ITEMS = {
  parameters: ['3767a1ca36fa434db3b633f0aa44e76b', 8],
  size: ['2442a52f1bcd7648b2115dbed83bf4b8', 8],
  page83: ['ab12cabee6b2234593efc309e000c746', 16],
  logicalSector: ['1dbf41816fa90947ba47f233a8faab5f', 4],
  physicalSector: ['c748a3cd5d4471449cc9e9885251c556', 4],
} as const;
const PARENT_LOCATOR = '2d5fd3a80bb34d45abf7d3d84834ab0c';
const KNOWN: readonly string[] = Object.values(ITEMS).map(([guid]) => guid);

/** What a VHDX says of its disk; bytes. */
export interface Disk {
  virtualSize: number;
  blockSize: number;
  sectorSize: number;
}

/** Reads the metadata region at `offset`. A parent, in whichever of the two ways it is said, is IMAGE_BACKING_FILE. */
export async function readMetadata(image: ImageFile, offset: number, length: number, maxVirtualSize: number): Promise<Disk> {
  const b = await image.read(offset, TABLE, 'the metadata table');
  requireSound(b.toString('latin1', 0, 8) === 'metadata', 'the metadata table has a wrong signature');
  const count = b.readUInt16LE(10);
  requireSound(count <= 2047, `the metadata table has ${count} entries`);
  const places = new Map<string, number>();
  for (let at = 32; at < 32 + count * 32; at += 32) {
    const guid = b.toString('hex', at, at + 16);
    if (guid === PARENT_LOCATOR) throw new CisternError('IMAGE_BACKING_FILE', 'it has a parent locator');
    const required = (b.readUInt32LE(at + 24) & FLAG_REQUIRED) !== 0;
    if (required && !KNOWN.includes(guid))
      throw new CisternError('IMAGE_FEATURE_UNKNOWN', `it requires metadata of unknown kind ${guid}`);
    requireSound(!places.has(guid), `metadata ${guid} is there twice`);
    places.set(guid, b.readUInt32LE(at + 16));
  }
  const item = (kind: keyof typeof ITEMS): Promise<Buffer> => {
    const [guid, size] = ITEMS[kind];
    const place = places.get(guid);
    requireSound(place !== undefined, `the metadata lacks its ${kind}`);
    requireSound(place >= TABLE && place + size <= length, `the metadata's ${kind} cannot lie at byte ${place} of it`);
    return image.read(offset + place, size, `the metadata's ${kind}`);
  };
  const parameters = await item('parameters');
  const blockSize = parameters.readUInt32LE(0);
  if ((parameters.readUInt32LE(4) & HAS_PARENT) !== 0) throw new CisternError('IMAGE_BACKING_FILE', 'it is a differencing disk');
  requireSound(isPowerOfTwo(blockSize) && blockSize >= 2 ** 20 && blockSize <= 2 ** 28, `a block cannot have ${blockSize} bytes`);
  const sectorSize = (await item('logicalSector')).readUInt32LE(0);
  const physical = (await item('physicalSector')).readUInt32LE(0);
  requireSound(
    [512, 4096].includes(sectorSize) && [512, 4096].includes(physical),
    `sectors of ${sectorSize}/${physical} bytes are not valid`,
  );
  await item('page83');
  const virtualSize = u64le(await item('size'), 0);
  requireSize(virtualSize, maxVirtualSize);
  requireSound(
    virtualSize > 0 && virtualSize <= MAX_DISK && virtualSize % sectorSize === 0,
    `a disk of ${virtualSize} bytes is not valid`,
  );
  return { virtualSize, blockSize, sectorSize };
}
