/** Reads and writes a local file inside a transfer thread. */
import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs';
import { CisternError, type ErrorCode } from '../../shared/errors.ts';
import type { Moved, RangeReader, RangeWriter } from './ends.ts';
import { fileError } from './file-error.ts';

/** What the file ends hand to a thread. */
export interface FileData {
  path: string;
  /** The code for a full file system: POOL_FULL or STORE_FULL, as it belongs to a pool or a store. */
  full: ErrorCode;
}

export function openReader(data: unknown, moved: Moved): RangeReader {
  const { path, full } = data as FileData;
  const fd = attempt('opening', path, full, () => openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW));
  return {
    read: (offset, into) => {
      for (let at = 0; at < into.length;) {
        const n = attempt('reading', path, full, () => readSync(fd, into, at, into.length - at, offset + at));
        if (n === 0)
          throw new CisternError('IO_ERROR', `reading ${path}: it ended at ${offset + at}, ${into.length - at} bytes too early`);
        at += n;
        moved(n);
      }
    },
    close: () => closeSync(fd),
  };
}

export function openWriter(data: unknown, moved: Moved): RangeWriter {
  const { path, full } = data as FileData;
  const fd = attempt('opening', path, full, () => openSync(path, constants.O_WRONLY | constants.O_NOFOLLOW));
  return {
    write: (offset, bytes) => {
      for (let at = 0; at < bytes.length;) {
        const n = attempt('writing', path, full, () => writeSync(fd, bytes, at, bytes.length - at, offset + at));
        at += n;
        moved(n);
      }
    },
    close: () => attempt('closing', path, full, () => closeSync(fd)),
  };
}

function attempt<T>(what: string, path: string, full: ErrorCode, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw fileError(error, `${what} ${path}`, { full });
  }
}
