import { chmodSync, existsSync } from 'node:fs';
import { DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite';
import { SqliteDialect, type SqliteDatabase, type SqliteStatement } from 'kysely';
import { CisternError } from '../../shared/errors.ts';

/** How many prepared statements are kept; the product has fewer distinct ones. */
const STATEMENTS = 500;

/**
 * Kysely's SQLite dialect over Node's own SQLite. The file is locked for this process (two controllers on one file would be two
 * truths), every commit is synced to disk, and prepared statements are kept.
 */
export function sqliteDialect(file: string): SqliteDialect {
  const fresh = !existsSync(file);
  const db = new DatabaseSync(file);
  if (fresh && file !== ':memory:') chmodSync(file, 0o600);
  try {
    db.exec(
      'pragma locking_mode = exclusive; pragma journal_mode = wal; pragma synchronous = full; pragma foreign_keys = on; pragma busy_timeout = 2000; begin immediate; commit;',
    );
  } catch (cause) {
    db.close();
    throw new CisternError('DATABASE_UNAVAILABLE', `opening the database ${file}: ${(cause as Error).message}`, {
      cause,
      action: 'Another controller may be running on the same state folder; else check free space and permissions.',
    });
  }
  const kept = new Map<string, SqliteStatement>();
  const database: SqliteDatabase = {
    close: () => db.close(),
    prepare: sql => {
      const old = kept.get(sql);
      if (old) return old;
      if (kept.size >= STATEMENTS) kept.clear();
      const made = adapt(db.prepare(sql));
      // on a full disk SQLite has rolled back by itself, and saying so again would hide that the disk is full
      const run = made.run;
      if (sql === 'rollback') made.run = values => (db.isTransaction ? run(values) : { changes: 0, lastInsertRowid: 0 });
      kept.set(sql, made);
      return made;
    },
  };
  return new SqliteDialect({ database });
}

function adapt(statement: StatementSync): SqliteStatement {
  const values = (parameters: readonly unknown[]) => parameters as SQLInputValue[];
  return {
    reader: statement.columns().length > 0,
    all: parameters => statement.all(...values(parameters)),
    run: parameters => statement.run(...values(parameters)),
    iterate: parameters => statement.iterate(...values(parameters)) as IterableIterator<unknown>,
  };
}
