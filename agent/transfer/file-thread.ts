/** Reads and writes a local file inside a transfer thread. */
import { isHeld } from '../host/held.ts';
import { closeSync, constants, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import type { Moved, RangeReader, RangeWriter } from './ends.ts';
import { EndError } from './end-error.ts';
import { saidOf } from '../host/no-room.ts';
import { fileCode, type FileCodes } from './file-code.ts';

/** Bytes of one system call: so few that the stall watchdog sees a slow disk or server move. */
const STEP = 2 ** 20;
/** Direct I/O goes by whole blocks; no file system known to us has larger ones. */
const BLOCK = 4096;

/** What the file ends hand to a thread. */
export interface FileData {
  path: string;
  codes: FileCodes;
  /** Reads go past the page cache where they can. */
  direct: boolean;
}

export function openReader(data: unknown, moved: Moved): RangeReader {
  const { path, codes, direct: wanted } = data as FileData;
  const fd = attempt('opening', path, codes, () => openFile(path, constants.O_RDONLY));
  let direct = wanted ? attempt('opening', path, codes, () => openDirect(fd, constants.O_RDONLY)) : undefined;
  const readSome = (into: Uint8Array, at: number, offset: number): number => {
    const length = Math.min(STEP, into.length - at);
    const whole = length - (length % BLOCK);
    if (direct !== undefined && whole > 0 && offset % BLOCK === 0) {
      try {
        return readSync(direct, into, at, whole, offset);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
        closeSync(direct);
        direct = undefined;
      }
    }
    return readSync(fd, into, at, length, offset);
  };
  return {
    read: (offset, into) => {
      for (let at = 0; at < into.length;) {
        const n = attempt('reading', path, codes, () => readSome(into, at, offset + at));
        if (n === 0)
          throw new EndError('IO_ERROR', `reading ${path}: it ended at ${offset + at}, ${into.length - at} bytes too early`);
        at += n;
        moved(n);
      }
    },
    close: () => [fd, direct].forEach(one => one !== undefined && closeSync(one)),
  };
}

/**
 * Writes past the page cache where it can: a part is large and not read again soon, and measured here a GiB then costs 0.1 s of CPU
 * where the cache costs 0.3 to 4 (most of it the host of a VM finding memory for it); `publish` has nothing left to flush.
 */
export function openWriter(data: unknown, moved: Moved): RangeWriter {
  const { path, codes } = data as FileData;
  const fd = attempt('opening', path, codes, () => openFile(path, constants.O_WRONLY));
  let direct = attempt('opening', path, codes, () => openDirect(fd, constants.O_WRONLY));
  const writeSome = (bytes: Uint8Array, at: number, offset: number): number => {
    const whole = bytes.length - at - ((bytes.length - at) % BLOCK);
    if (direct !== undefined && whole > 0 && offset % BLOCK === 0) {
      try {
        return writeSync(direct, bytes, at, whole, offset);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
        closeSync(direct); // its blocks are larger than ours, or it never could
        direct = undefined;
      }
    }
    return writeSync(fd, bytes, at, Math.min(STEP, bytes.length - at), offset);
  };
  return {
    write: (offset, bytes) => {
      for (let at = 0; at < bytes.length;) {
        const n = attempt('writing', path, codes, () => writeSome(bytes, at, offset + at));
        at += n;
        moved(n);
      }
    },
    close: () => attempt('closing', path, codes, () => [fd, direct].forEach(one => one !== undefined && closeSync(one))),
  };
}

/** Opens a regular file. What was put in its place is refused: a link is not followed, and a pipe not waited for. */
function openFile(path: string, how: number): number {
  const fd = openSync(path, how | (isHeld(path) ? 0 : constants.O_NOFOLLOW) | constants.O_NONBLOCK);
  if (fstatSync(fd).isFile()) return fd;
  closeSync(fd);
  throw new Error('it is not a regular file');
}

/** A descriptor of the very file that is open as `fd` that goes past the page cache; undefined where the file system has none. */
function openDirect(fd: number, how: number): number | undefined {
  try {
    return openSync(`/proc/self/fd/${fd}`, how | constants.O_DIRECT);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EINVAL') return undefined;
    throw error;
  }
}

function attempt<T>(what: string, path: string, codes: FileCodes, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw new EndError(fileCode(error, codes), `${what} ${path}: ${saidOf(error as Error)}`, { cause: error });
  }
}
