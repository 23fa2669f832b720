import type { ImageFile } from './file.ts';

/** How much is looked at of a table that has no end of its own: this much in all, from both of its ends. */
const PART = 2 ** 22;

/** A part of a table of `length` bytes at `offset`: its bytes, and the index of the first of its entries. */
export interface TablePart {
  first: number;
  bytes: Buffer;
}

/**
 * All of a table of up to 4 MiB, else its first and last 2 MiB. The entries between can only lead qemu to zeros, to an error or to
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

/** Tells for each of at most `most` positive numbers whether it was told before. A Set takes 20 times as long on large tables. */
export function seenBefore(most: number): (n: number) => boolean {
  const bits = Math.max(4, Math.ceil(Math.log2(most * 2 + 1)));
  const slots = new Float64Array(2 ** bits);
  return n => {
    let at = Math.imul((n >>> 0) ^ Math.floor(n / 2 ** 32), 0x9e37_79b1) >>> (32 - bits);
    for (; slots[at] !== 0; at = (at + 1) & (slots.length - 1)) if (slots[at] === n) return true;
    slots[at] = n;
    return false;
  };
}
