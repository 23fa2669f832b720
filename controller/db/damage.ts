import { CisternError } from '../../shared/errors.ts';

/** SQLITE_CORRUPT and SQLITE_NOTADB (sqlite.org/rescode.html), the low bytes of their extended codes too. */
const CODES = [11, 26];

/** Whether SQLite says that the file does not hold what was written to it. */
export function isDamage(error: unknown): error is Error {
  const { errcode } = (error ?? {}) as { errcode?: number };
  return errcode !== undefined && CODES.includes(errcode & 0xff);
}

/** `found`: what is wrong with it. */
export const damaged = (file: string, found: string, cause?: unknown): CisternError =>
  new CisternError('DATABASE_DAMAGED', `the database ${file}: ${found}`, { cause });
