/** Reads and writes a local file inside a transfer thread. */
import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs';
import type { Moved, RangeReader, RangeWriter } from './ends.ts';
import { EndError } from './end-error.ts';
import { fileCode, type FileCodes } from './file-code.ts';

/** Bytes of one system call: so few that the stall watchdog sees a slow disk or server move. */
const STEP = 2 ** 20;

/** What the file ends hand to a thread. */
export interface FileData {
  path: string;
  codes: FileCodes;
}

export function openReader(data: unknown, moved: Moved): RangeReader {
  const { path, codes } = data as FileData;
  const fd = attempt('opening', path, codes, () => openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW));
  return {
    read: (offset, into) => {
      for (let at = 0; at < into.length;) {
        const n = attempt('reading', path, codes, () => readSync(fd, into, at, Math.min(STEP, into.length - at), offset + at));
        if (n === 0)
          throw new EndError('IO_ERROR', `reading ${path}: it ended at ${offset + at}, ${into.length - at} bytes too early`);
        at += n;
        moved(n);
      }
    },
    close: () => closeSync(fd),
  };
}

export function openWriter(data: unknown, moved: Moved): RangeWriter {
  const { path, codes } = data as FileData;
  const fd = attempt('opening', path, codes, () => openSync(path, constants.O_WRONLY | constants.O_NOFOLLOW));
  return {
    write: (offset, bytes) => {
      for (let at = 0; at < bytes.length;) {
        const n = attempt('writing', path, codes, () => writeSync(fd, bytes, at, Math.min(STEP, bytes.length - at), offset + at));
        at += n;
        moved(n);
      }
    },
    close: () => attempt('closing', path, codes, () => closeSync(fd)),
  };
}

function attempt<T>(what: string, path: string, codes: FileCodes, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw new EndError(fileCode(error, codes), `${what} ${path}: ${(error as Error).message}`, { cause: error });
  }
}
