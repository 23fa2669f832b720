import { CisternError } from '../../../shared/errors.ts';
import { requireInside, requireSize } from './file.ts';
import type { ImageFile } from './file.ts';
import { checkPartitions } from './partitions.ts';
import { sniffRaw } from './sniff.ts';

const ACTION = {
  convert: 'Convert it where it was made: qemu-img convert -O qcow2 IN OUT.',
  declare: 'Declare the format "raw" if it is a plain disk; otherwise convert it: qemu-img convert -O qcow2 IN OUT.',
};

/** A format that is known, but not taken. */
export const unknownFormat = (name: string): CisternError =>
  new CisternError('IMAGE_FORMAT_UNKNOWN', `it is ${name}, which cannot be imported`, { action: ACTION.convert });

/**
 * Any bytes are a raw disk, so the user must say so, or a partition table or file system must. No program of ours reads what is in
 * it, so only one thing is asked of that: whether a part of it was cut off. Returns the disk's size.
 */
export async function judgeRaw(image: ImageFile, head: Buffer, declared: boolean, maxVirtualSize: number): Promise<number> {
  const marks = sniffRaw(head).map(({ name }) => name);
  if (!declared && marks.length === 0) {
    throw new CisternError('IMAGE_FORMAT_UNKNOWN', 'it has no known header, partition table or file system', {
      action: ACTION.declare,
    });
  }
  // qemu pads the last sector of a file with zeros
  const virtualSize = Math.ceil(image.size / 512) * 512;
  requireSize(virtualSize, maxVirtualSize);
  await checkNoVhd(image, declared);
  // Partition tables on an ISO are made to please old firmware, and often reach beyond it.
  if (marks.includes('iso9660')) await checkIso(image);
  else await checkPartitions(image);
  return virtualSize;
}

/** A fixed VHD is a raw disk with one sector more, by which it is known. */
async function checkNoVhd(image: ImageFile, declared: boolean): Promise<void> {
  if (image.size <= 512) return;
  const footer = await image.read(image.size - 512, 8, 'the last sector');
  if (footer.toString('latin1') !== 'conectix') return;
  if (declared) throw new CisternError('IMAGE_FORMAT_MISMATCH', 'it is declared raw, but ends as a fixed vhd');
  throw unknownFormat('a fixed vhd');
}

/** Writers count up to 150 blocks of padding behind the data, and some copies lack it. */
const ISO_PADDING = 150 * 2048;

/** The primary volume descriptor says how many blocks an ISO has, in both byte orders (ECMA-119, 8.4); where they differ, it says nothing. */
async function checkIso(image: ImageFile): Promise<void> {
  if (image.size < 0x8000 + 136) return;
  const b = await image.read(0x8000, 136, 'the volume descriptor');
  const [blocks, blockSize] = [b.readUInt32LE(80), b.readUInt16LE(128)];
  if (b[0] !== 1 || blocks !== b.readUInt32BE(84) || blockSize !== b.readUInt16BE(130)) return;
  const size = blocks * blockSize;
  requireInside(
    { size: image.size, whole: size },
    0,
    Math.max(0, size - ISO_PADDING),
    'the ISO 9660 file system without its padding',
  );
}
