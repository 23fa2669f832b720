/** Objects are cut into parts: the unit of parallel transfer, of verification and of sparseness. */
import { createHash, hash } from 'node:crypto';

/** Bytes of every part but the last, which may be shorter. */
export const PART_SIZE = 16 * 2 ** 20;

/** No part is larger: a stream holds one in memory. */
export const LARGEST_PART = 128 * 2 ** 20;

/** Bytes of a part, for an object of `size` bytes that may have so many parts: as few as there can be, doubled from PART_SIZE on. */
export function partSizeFor(size: number, mostParts = Infinity): number {
  let partSize = PART_SIZE;
  while (partCount(size, partSize) > mostParts && partSize < LARGEST_PART) partSize *= 2;
  return partSize;
}

/** What a manifest says of a part: its SHA-256 in hex, or that it holds zeros only and is never moved. */
export type PartDigest = string;
export const ZERO = 'zero';

export const partCount = (size: number, partSize = PART_SIZE): number => Math.ceil(size / partSize);

/** Where part `index` of an object of `size` bytes lies. */
export function partRange(index: number, size: number, partSize = PART_SIZE): { offset: number; length: number } {
  const offset = index * partSize;
  return { offset, length: Math.min(partSize, size - offset) };
}

/** Whether there are only zeros: the first byte is one, and every byte equals its neighbour (one memcmp, no second buffer). */
export function isZero(data: Buffer): boolean {
  const last = data.length - 1;
  return data.length === 0 || (data[0] === 0 && data.compare(data, 1, data.length, 0, last) === 0);
}

/** A part as its manifest entry. */
export const digestOf = (data: Buffer): PartDigest => (isZero(data) ? ZERO : hash('sha256', data, 'hex'));

/** Numbers of the parts that must be read: all but those that are known to be zero. */
export function partsToMove(count: number, expected: readonly PartDigest[] | undefined): number[] {
  return Array.from({ length: count }, (_, i) => i).filter(i => expected?.[i] !== ZERO);
}

/**
 * The digest of a whole object, made from its parts, so that parts may be hashed in any order and at the same time. It is the SHA-256
 * of this text, each line ended by "\n": first `SIZE PARTSIZE` in decimal, then the entries of `parts` in order, one a line.
 * It is not what `sha256sum` prints for the object.
 */
export function digestOfParts(size: number, partSize: number, parts: readonly PartDigest[]): string {
  const text = createHash('sha256').update(`${size} ${partSize}\n`);
  for (const part of parts) text.update(`${part}\n`);
  return text.digest('hex');
}
