import { chmodSync, existsSync } from 'node:fs';
import { DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite';
import { SqliteDialect, type SqliteDatabase, type SqliteStatement } from 'kysely';
import { CisternError } from '../../shared/errors.ts';
import { damaged, isDamage } from './damage.ts';

/** How many prepared statements are kept; the product has fewer distinct ones. */
const STATEMENTS = 500;

/**
 * Opens a database file with Node's own SQLite. It is locked for this process (two controllers on one file would be two truths), and
 * every commit is synced to disk. DATABASE_DAMAGED or DATABASE_UNAVAILABLE where that fails.
 */
export function openSqlite(file: string): DatabaseSync {
  const fresh = !existsSync(file);
  const db = new DatabaseSync(file);
  if (fresh && file !== ':memory:') chmodSync(file, 0o600);
  try {
    db.exec(
      'pragma locking_mode = exclusive; pragma journal_mode = wal; pragma synchronous = full; pragma foreign_keys = on; pragma busy_timeout = 2000; begin immediate; commit;',
    );
  } catch (cause) {
    db.close();
    if (isDamage(cause)) throw damaged(file, cause.message, cause);
    throw new CisternError('DATABASE_UNAVAILABLE', `opening the database ${file}: ${(cause as Error).message}`, {
      cause,
      action: 'Another controller may be running on the same state folder; else check free space and permissions.',
    });
  }
  return db;
}

/**
 * Kysely's dialect over it; prepared statements are kept. Where SQLite finds the file damaged, what `onDamage` returns is thrown; `onDiskError`
 * is told where the disk could not read or write.
 */
export function sqliteDialect(db: DatabaseSync, onDamage: (cause: Error) => Error, onDiskError: () => void): SqliteDialect {
  const guard = <T>(work: () => T): T => {
    try {
      return work();
    } catch (error) {
      if (primary(error) === IOERR) onDiskError();
      throw isDamage(error) ? onDamage(error) : unavailable(error);
    }
  };
  const kept = new Map<string, SqliteStatement>();
  const database: SqliteDatabase = {
    close: () => db.close(),
    prepare: sql => {
      const old = kept.get(sql);
      if (old) return old;
      if (kept.size >= STATEMENTS) kept.clear();
      const made = adapt(guard(() => db.prepare(sql)), guard); // prettier-ignore
      // on a full disk SQLite has rolled back by itself, and saying so again would hide that the disk is full
      const run = made.run;
      if (sql === 'rollback') made.run = values => (db.isTransaction ? run(values) : { changes: 0, lastInsertRowid: 0 });
      kept.set(sql, made);
      return made;
    },
  };
  return new SqliteDialect({ database });
}

function adapt(statement: StatementSync, guard: <T>(work: () => T) => T): SqliteStatement {
  const values = (parameters: readonly unknown[]) => parameters as SQLInputValue[];
  return {
    reader: statement.columns().length > 0,
    all: parameters => guard(() => statement.all(...values(parameters))),
    run: parameters => guard(() => statement.run(...values(parameters))),
    iterate: parameters => guard(() => statement.iterate(...values(parameters)) as IterableIterator<unknown>),
  };
}

/** What SQLite says where the disk and not the statement is at fault: https://www.sqlite.org/rescode.html, the low byte. */
const IOERR = 10;
const DISK = [8 /* READONLY */, IOERR, 13 /* FULL */, 14 /* CANTOPEN */];

const primary = (error: unknown): number => ((error as { errcode?: number }).errcode ?? 0) & 0xff;

function unavailable(error: unknown): unknown {
  if (!DISK.includes(primary(error))) return error;
  return new CisternError('DATABASE_UNAVAILABLE', `using the database: ${(error as Error).message}`, { cause: error });
}
