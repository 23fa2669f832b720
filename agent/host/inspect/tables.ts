import { CisternError } from '../../../shared/errors.ts';
import type { ImageFile } from './file.ts';

/** How much is looked at of a table that has no end of its own: this much in all, from both of its ends. */
const PART = 2 ** 20;

/** A part of a table of `length` bytes at `offset`: its bytes, and the index of the first of its entries. */
export interface TablePart {
  first: number;
  bytes: Buffer;
}

/**
 * All of a table of up to 1 MiB, else its first and last 512 KiB. The entries between can only lead qemu to zeros, to an error or to
 * the same bytes once more, none of which opens another file; what that expands to is bounded where it is converted.
 */
export async function readTable(
  image: ImageFile,
  offset: number,
  length: number,
  entry: number,
  what: string,
): Promise<TablePart[]> {
  if (length <= PART) return [{ first: 0, bytes: await image.read(offset, length, what) }];
  const last = length - PART / 2;
  return [
    { first: 0, bytes: await image.read(offset, PART / 2, what) },
    { first: last / entry, bytes: await image.read(offset + last, PART / 2, what) },
  ];
}

/**
 * IMAGE_CORRUPT where two entries of a table lead to one place. Sorted, because a Set takes five times as long on a large table, and
 * a hash table of our own could be made to take for ever by whoever chooses what is in it.
 */
export function requireDistinct(places: readonly number[], what: string): void {
  const sorted = Float64Array.from(places).sort();
  for (let i = 1; i < sorted.length; i++)
    if (sorted[i] === sorted[i - 1]) throw new CisternError('IMAGE_CORRUPT', `${what} ${sorted[i]} is used twice`);
}
