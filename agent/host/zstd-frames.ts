import { open, type FileHandle } from 'node:fs/promises';
import { CisternError } from '../../shared/errors.ts';

/** Bytes `start` up to and excluding `end` of a file. */
export interface Frame {
  start: number;
  end: number;
}

const BLOCK = { repeated: 1, reserved: 3 };

/** Read at once while looking for block headers, which lie at most 128 KiB apart. */
const WINDOW = 4096;

/**
 * The data frames of a .zst file, skippable ones left out (RFC 8878, section 3.1). Parallel compressors write many frames, and
 * Node's decoder silently ends after the first one. Throws IMAGE_TRUNCATED and IMAGE_CORRUPT.
 */
export async function* zstdFrames(path: string, signal: AbortSignal | undefined): AsyncGenerator<Frame> {
  await using file = await open(path, 'r');
  const { size } = await file.stat();
  const at = bytesOf(file, size, path);
  for (let start = 0; start < size;) {
    signal?.throwIfAborted();
    const magic = (await at(start, 4)).readUInt32LE();
    // 0x184D2A50 to 0x184D2A5F, then the length of what is to be skipped.
    if (magic >>> 4 === 0x184d2a5) {
      start += 8 + (await at(start + 4, 4)).readUInt32LE();
      if (start > size) throw truncated(path, size);
      continue;
    }
    if (magic !== 0xfd2fb528) throw new CisternError('IMAGE_CORRUPT', `${path} (zst): no frame begins at byte ${start}`);
    const end = await frameEnd(at, start, path, signal);
    if (end > size) throw truncated(path, size);
    yield { start, end };
    start = end;
  }
}

type At = (position: number, length: number) => Promise<Buffer>;

async function frameEnd(at: At, start: number, path: string, signal: AbortSignal | undefined): Promise<number> {
  const descriptor = (await at(start + 4, 1)).readUInt8();
  const single = (descriptor & 0x20) !== 0;
  const sizeField = [single ? 1 : 0, 2, 4, 8][descriptor >> 6] ?? 0;
  const dictionary = [0, 1, 2, 4][descriptor & 3] ?? 0;
  let position = start + 5 + (single ? 0 : 1) + dictionary + sizeField;
  for (let last = false; !last;) {
    signal?.throwIfAborted();
    const header = (await at(position, 3)).readUIntLE(0, 3);
    last = (header & 1) === 1;
    const kind = (header >> 1) & 3;
    if (kind === BLOCK.reserved) throw new CisternError('IMAGE_CORRUPT', `${path} (zst): no block begins at byte ${position}`);
    position += 3 + (kind === BLOCK.repeated ? 1 : header >> 3);
  }
  return position + ((descriptor & 4) !== 0 ? 4 : 0);
}

/** Random reads through a small window. */
function bytesOf(file: FileHandle, size: number, path: string): At {
  const window = Buffer.alloc(WINDOW);
  let from = 0;
  let filled = 0;
  return async (position, length) => {
    if (position + length > size) throw truncated(path, size);
    if (position < from || position + length > from + filled) {
      filled = (await file.read(window, 0, WINDOW, position)).bytesRead;
      from = position;
      if (filled < length) throw truncated(path, size);
    }
    return window.subarray(position - from, position - from + length);
  };
}

const truncated = (path: string, size: number): CisternError =>
  new CisternError('IMAGE_TRUNCATED', `${path} (zst): unexpected end of file after ${size} bytes, inside a frame`);
