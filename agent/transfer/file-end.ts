/** Local files as ends of a transfer. Links are not followed in the last segment; the caller vouches for the folders. */
import { constants } from 'node:fs';
import { lstat, open, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { isHeld } from '../host/held.ts';
import { CisternError } from '../../shared/errors.ts';
import type { RangeEnd, Sink, Source } from './ends.ts';
import type { FileCodes } from './file-code.ts';
import { fileError } from './file-error.ts';
import { beginJournal, takeUpJournal, type JournalHead, type PartJournal } from './part-journal.ts';
import type { FileData } from './file-thread.ts';

export type { FileCodes };

/** A local file to read; `direct`: past the page cache where it can. Throws `codes.missing` (IO_ERROR) where there is no regular file. */
export async function fileSource(
  path: string,
  options: { name?: string; codes?: FileCodes; direct?: boolean } = {},
): Promise<Source> {
  const name = options.name ?? path;
  const seen = await (isHeld(path) ? stat : lstat)(path).catch((error: unknown) => {
    throw fileError(error, `opening ${name}`, options.codes);
  });
  if (!seen.isFile()) throw new CisternError(options.codes?.missing ?? 'IO_ERROR', `opening ${name}: it is not a regular file`);
  return { name, size: seen.size, file: path, ranges: () => Promise.resolve(fileEnd(path, options.codes, options.direct)) };
}

/**
 * A local file to write: made as `partial`, over what may lie there, at its full size but without blocks; `publish` fsyncs it, gives it
 * `mode` (0644), renames it to `final` over what may be there and fsyncs the folder. `abort`, or a publish that fails, removes it.
 * Both paths must lie on one file system. With `resume` a journal is kept beside it, and a partial file that an attempt at the same object
 * left is gone on with.
 */
export async function fileSink(options: {
  partial: string;
  final: string;
  size: number;
  mode?: number;
  name?: string;
  codes?: FileCodes;
  resume?: Omit<JournalHead, 'size'>;
}): Promise<Sink> {
  const { partial, final, size, codes, mode = 0o644, resume } = options;
  const name = options.name ?? final;
  const noted = `${partial}.parts`;
  const journal = await begin(partial, noted, size, resume).catch((error: unknown) => {
    throw fileError(error, `making ${name}`, codes);
  });
  const remove = async (): Promise<void> => {
    await journal?.settled();
    await rm(partial, { force: true });
    if (journal) await rm(noted, { force: true });
  };
  return {
    name,
    ...(journal && {
      kept: journal.kept,
      arrived: journal.arrived,
      park: () => (journal.empty() ? remove() : journal.settled()),
    }),
    file: partial,
    ranges: () => Promise.resolve(fileEnd(partial, codes)),
    flush: () =>
      sync(partial).catch((error: unknown) => {
        throw fileError(error, `bringing ${name} to the disk`, codes);
      }),
    publish: async () => {
      try {
        await settle(partial, mode);
        await journal?.settled();
        if (journal) await rm(noted);
        await rename(partial, final);
        await sync(`${dirname(final)}/.`);
      } catch (error) {
        await remove();
        throw fileError(error, `publishing ${name}`, codes);
      }
    },
    abort: remove,
  };
}

async function begin(
  partial: string,
  noted: string,
  size: number,
  resume: Omit<JournalHead, 'size'> | undefined,
): Promise<PartJournal | undefined> {
  const head = resume && { size, ...resume };
  const there = head && (await takeUpJournal(noted, partial, head));
  if (there) return there;
  await rm(partial, { force: true });
  await make(partial, size);
  try {
    return head && (await beginJournal(noted, head));
  } catch (error) {
    await rm(partial, { force: true });
    throw error;
  }
}

async function make(partial: string, size: number): Promise<void> {
  await using file = await open(partial, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o600);
  try {
    await file.truncate(size);
  } catch (error) {
    await rm(partial, { force: true });
    throw error;
  }
}

/** What is opened to be synced may have been replaced: by a link, which is not followed, or by a pipe, which is not waited for. */
const AS_IT_IS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

/** Waits until a file or a folder is on its disk. */
export async function sync(path: string): Promise<void> {
  await using file = await open(path, AS_IT_IS);
  await file.sync();
}

async function settle(path: string, mode: number): Promise<void> {
  await using file = await open(path, AS_IT_IS);
  await file.chmod(mode);
  await file.sync();
}

/** A file as one end of a stream, opened by the thread that reads or writes it. */
export function fileEnd(path: string, codes: FileCodes | undefined, direct = false): RangeEnd {
  const data: FileData = { path, codes: { full: codes?.full, broken: codes?.broken }, direct };
  return { module: new URL('./file-thread.ts', import.meta.url).href, data, release: () => Promise.resolve() };
}
