import { CisternError } from '../../../shared/errors.ts';
import { requireInside, requireSize, requireSound, u64le } from './file.ts';
import type { ImageFile, Judge } from './file.ts';
import { readTable, requireDistinct } from './tables.ts';

/** Image types of VirtualBox: only the first two are whole in themselves. */
const TYPES: Record<number, string> = { 1: 'dynamic', 2: 'static', 3: 'undo', 4: 'differencing' };
const BLOCK = 2 ** 20;
const MAX_BLOCKS = 0x1fff_ffff;
/** Block map entries from here on mean "not there" (free, discarded). */
const UNALLOCATED = 0xffff_fffe;

/** Judges a VDI 1.1, dynamic or static, by its header (the layout of block/vdi.c in qemu) and its block map. */
export const judgeVdi: Judge = async (image, maxVirtualSize) => {
  const b = await image.read(0, 512, 'the header');
  const version = b.readUInt32LE(0x44);
  const type = b.readUInt32LE(0x4c);
  if (version !== 0x0001_0001)
    throw new CisternError('IMAGE_FEATURE_UNKNOWN', `VDI version ${version >>> 16}.${version & 0xffff} is not known`);
  if (type === 3 || type === 4)
    throw new CisternError('IMAGE_BACKING_FILE', `it is a VDI of type ${TYPES[type]}, which stands on another`);
  if (type !== 1 && type !== 2) throw new CisternError('IMAGE_FEATURE_UNKNOWN', `VDI type ${type} is not known`);
  if (!isZero(b, 0x1a8, 16) || !isZero(b, 0x1b8, 16))
    throw new CisternError('IMAGE_BACKING_FILE', 'it names a parent or a link by its UUID');
  const sectorSize = b.readUInt32LE(0x168);
  const blockSize = b.readUInt32LE(0x178);
  if (sectorSize !== 512 || blockSize !== BLOCK || b.readUInt32LE(0x17c) !== 0) {
    throw new CisternError(
      'IMAGE_FEATURE_UNKNOWN',
      `sectors of ${sectorSize} and blocks of ${blockSize} bytes; qemu reads 512 and ${BLOCK} only`,
    );
  }
  const virtualSize = Math.ceil(u64le(b, 0x170) / 512) * 512;
  requireSize(virtualSize, maxVirtualSize);
  const blocks = b.readUInt32LE(0x180);
  const allocated = b.readUInt32LE(0x184);
  const mapOffset = b.readUInt32LE(0x154);
  const dataOffset = b.readUInt32LE(0x158);
  requireSound(
    blocks <= MAX_BLOCKS && virtualSize <= blocks * BLOCK,
    `${blocks} blocks do not make a disk of ${virtualSize} bytes`,
  );
  requireSound(allocated <= blocks, `${allocated} of ${blocks} blocks are said to be there`);
  requireSound(mapOffset >= 512 && mapOffset % 512 === 0, `the block map cannot lie at byte ${mapOffset}`);
  requireSound(dataOffset % 512 === 0 && dataOffset >= mapOffset + blocks * 4, `the data cannot lie at byte ${dataOffset}`);
  // map and data follow the header, each on a boundary of up to 1 MiB
  const bounds = { size: image.size, whole: 16 * BLOCK + blocks * (4 + BLOCK) };
  requireInside(bounds, mapOffset, blocks * 4, 'the block map');
  requireInside(bounds, dataOffset, allocated * BLOCK, 'the data');
  await checkMap(image, mapOffset, blocks, allocated);
  return { virtualSize, quiet: [0x1c8, 512] };
};

/** Every block that is there lies among the allocated ones, and none is used twice. */
async function checkMap(image: ImageFile, offset: number, blocks: number, allocated: number): Promise<void> {
  const parts = await readTable(image, offset, blocks * 4, 4, 'the block map');
  const there: number[] = [];
  for (const { first, bytes } of parts) {
    for (let at = 0; at < bytes.length; at += 4) {
      const block = bytes.readUInt32LE(at);
      if (block >= UNALLOCATED) continue;
      const index = first + at / 4;
      requireSound(block < allocated, `block ${index} is said to be block ${block} of the file, which has ${allocated}`);
      there.push(block);
    }
  }
  requireDistinct(there, 'block');
}

function isZero(buffer: Buffer, at: number, length: number): boolean {
  return buffer.subarray(at, at + length).every(byte => byte === 0);
}
