import { closeSync, existsSync, openSync, readdirSync, readSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { DatabaseSync } from 'node:sqlite';
import { compareClosed, wasClosed } from './closed-note.ts';
import { damaged, isDamage } from './damage.ts';
import { damageInWal } from './wal.ts';

const MAGIC = 'SQLite format 3\0';
/**
 * Bytes up to which a start after a crash compares tables with their indexes as well: seen to take 45 ms for each MiB on a busy machine,
 * 4 without that comparison, which then is left to the nightly backup.
 */
const SMALL = 32 * 2 ** 20;

/** Where backups of a database lie. */
export const backupsOf = (file: string): string => join(dirname(file), 'backups');
export const isBackup = (name: string): boolean => /^cistern-\d{8}T\d{6}Z\.db$/.test(name);

/**
 * Looks at a database before it is opened. DATABASE_DAMAGED where it is not what a controller left there: gone or empty though there
 * are backups of it, not a database, changed since it was closed, or with a damaged log. Returns whether its structure is to be
 * checked: the last controller did not close it, or it was put there.
 */
export function examine(file: string): { doubtful: boolean } {
  const size = existsSync(file) ? statSync(file).size : 0;
  if (size === 0) {
    const known = existsSync(backupsOf(file)) && readdirSync(backupsOf(file)).some(isBackup);
    if (known || wasClosed(file)) throw damaged(file, 'it is empty or not there, though it was in use before');
    return { doubtful: false };
  }
  const head = Buffer.alloc(MAGIC.length);
  const fd = openSync(file, 'r');
  readSync(fd, head);
  closeSync(fd);
  if (head.toString('latin1') !== MAGIC) throw damaged(file, 'its header is not that of a SQLite database');
  const wal = `${file}-wal`;
  const found = existsSync(wal) ? damageInWal(wal) : undefined;
  if (found !== undefined) throw damaged(file, found);
  const state = compareClosed(file);
  if (state === 'changed')
    throw damaged(file, 'its bytes have changed since the controller closed it, and no program has written to it');
  return { doubtful: state !== 'same' };
}

/** DATABASE_DAMAGED where tables, indexes or references do not fit together. */
export function checkStructure(db: DatabaseSync, file: string): void {
  const how = statSync(file).size <= SMALL ? 'integrity_check' : 'quick_check';
  const found = problems(db, how);
  if (found !== undefined) throw damaged(file, `${how} says: ${found}`);
}

/** What SQLite finds wrong in a database, in one line; undefined where nothing is. */
export function problems(db: DatabaseSync, how: 'integrity_check' | 'quick_check'): string | undefined {
  try {
    const lines = db.prepare(`pragma ${how}(3)`).all().map(row => String(Object.values(row)[0])); // prettier-ignore
    if (lines.join() !== 'ok') return lines.join('; ').replaceAll(/\s+/g, ' ');
    const [lost] = db.prepare('pragma foreign_key_check').all() as { table: string; parent: string }[];
    return lost && `a row of ${lost.table} names one of ${lost.parent} that is not there`;
  } catch (error) {
    if (isDamage(error)) return error.message;
    throw error;
  }
}
