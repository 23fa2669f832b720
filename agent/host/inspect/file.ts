import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { CisternError, wrapError } from '../../../shared/errors.ts';

/** Bytes that one judgement may read in all; what a header needs at most is near 6 MiB (a qcow2 with the largest L1 table). */
const READ_BUDGET = 8 * 2 ** 20;

/** An untrusted image file, for bounded reads. */
export interface ImageFile {
  size: number;
  /** Exactly `length` bytes. IMAGE_TRUNCATED where `what` does not lie inside the file, IMAGE_CORRUPT past the read budget. */
  read(offset: number, length: number, what: string): Promise<Buffer>;
}

/** What a format's judge found. */
export interface Judged {
  /** Bytes of the disk that a guest sees. */
  virtualSize: number;
  /** From..to: bytes in which an honest writer of this format leaves zeros; another format's signature there makes two of one file. */
  quiet: readonly [from: number, to: number];
}

export type Judge = (image: ImageFile, maxVirtualSize: number) => Promise<Judged>;

/**
 * Opens without following a link and without waiting for a peer (a planted FIFO would block an open for ever).
 * IO_ERROR for what cannot be opened or is no regular file.
 */
export async function openImage(path: string): Promise<ImageFile & AsyncDisposable> {
  const tried = `opening the image ${path}`;
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch((error: unknown) => {
    throw wrapError(error, 'IO_ERROR', tried);
  });
  try {
    const stat = await file.stat();
    if (!stat.isFile()) throw new CisternError('IO_ERROR', `${tried}: it is not a regular file`);
    const bytes = async (offset: number, length: number, what: string): Promise<Buffer> => {
      const buffer = Buffer.alloc(length);
      const { bytesRead } = await file.read(buffer, 0, length, offset).catch((error: unknown) => {
        throw wrapError(error, 'IO_ERROR', `reading ${what} of ${path}`);
      });
      return buffer.subarray(0, bytesRead);
    };
    return { ...boundedImage(stat.size, bytes), [Symbol.asyncDispose]: () => file.close() };
  } catch (error) {
    await file.close();
    throw wrapError(error, 'IO_ERROR', tried);
  }
}

type Bytes = (offset: number, length: number, what: string) => Promise<Buffer>;

/** An image of `size` bytes, wherever `bytes` takes them from, for one judgement. */
export function boundedImage(size: number, bytes: Bytes): ImageFile {
  let budget = READ_BUDGET;
  return {
    size,
    async read(offset, length, what) {
      requireInside({ size, whole: Infinity }, offset, length, what);
      budget -= length;
      requireSound(budget >= 0, `${what}: the headers are larger than any honest writer makes them`);
      const buffer = await bytes(offset, length, what);
      if (buffer.length < length) throw new CisternError('IMAGE_TRUNCATED', `${what}: the file ended while it was read`);
      return buffer;
    },
  };
}

/** How many bytes a file has, and up to where an honest file of such a disk could reach if nothing had been cut off. */
export interface Bounds {
  size: number;
  whole: number;
}

/** What does not lie inside the file is IMAGE_TRUNCATED where a longer file would have it, IMAGE_OUTSIDE where no honest file could. */
export function requireInside({ size, whole }: Bounds, offset: number, length: number, what: string): void {
  const end = offset + length;
  if (offset >= 0 && length >= 0 && end <= size) return;
  const said = `${what} takes ${length} bytes from byte ${offset}, the file has ${size} bytes`;
  throw new CisternError(end <= whole ? 'IMAGE_TRUNCATED' : 'IMAGE_OUTSIDE', said);
}

/** IMAGE_TOO_LARGE where a guest would see more than `max` bytes. */
export function requireSize(virtualSize: number, max: number): void {
  if (virtualSize <= max) return;
  throw new CisternError('IMAGE_TOO_LARGE', `the disk has ${virtualSize} bytes, maxVirtualSize allows ${max}`);
}

/** IMAGE_CORRUPT with `detail` unless `ok`. */
export function requireSound(ok: boolean, detail: string): asserts ok {
  if (!ok) throw new CisternError('IMAGE_CORRUPT', detail);
}

/** Untrusted text, short and without control characters, for a message. */
export function quote(text: string): string {
  return JSON.stringify(text.length > 100 ? `${text.slice(0, 100)}…` : text);
}

/** A 64-bit field as a number. Above 2^53 it is only near, which is enough to see that it lies outside of every file. */
export const u64be = (buffer: Buffer, at: number): number => buffer.readUInt32BE(at) * 2 ** 32 + buffer.readUInt32BE(at + 4);
export const u64le = (buffer: Buffer, at: number): number => buffer.readUInt32LE(at + 4) * 2 ** 32 + buffer.readUInt32LE(at);

export const isPowerOfTwo = (n: number): boolean => Number.isInteger(Math.log2(n));
