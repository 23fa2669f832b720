import { backup } from 'node:sqlite';
import { Kysely, sql, type Transaction } from 'kysely';
import { CisternError, wrapError } from '../../shared/errors.ts';
import { newId } from '../../shared/id.ts';
import { checkStructure, examine, problems } from './check.ts';
import { forgetClosed, noteClosed } from './closed-note.ts';
import { damaged } from './damage.ts';
import { forgetPages } from './forget-pages.ts';
import { statements } from './migrations/001-start.ts';
import { statements as time } from './migrations/002-time.ts';
import { statements as access } from './migrations/003-access.ts';
import { statements as damage } from './migrations/004-damage.ts';
import { statements as limits } from './migrations/005-limits.ts';
import { statements as join } from './migrations/006-join.ts';
import { statements as volumePaths } from './migrations/007-volume-paths.ts';
import { statements as levels } from './migrations/008-levels.ts';
import type { Tables } from './schema.ts';
import { openSqlite, sqliteDialect } from './sqlite.ts';

export type Trx = Transaction<Tables>;
/** What reads need: the database itself or a transaction of it. */
export type Reader = Kysely<Tables>;

export interface Database {
  /** For reads outside a transaction. */
  read: Reader;
  /**
   * Runs `job` in a transaction and resolves once it is on disk. Jobs asked for at the same time share one commit, so one sync
   * serves many; each is rolled back alone where it throws. A job awaits nothing but its own queries.
   */
  write<T>(job: (trx: Trx) => Promise<T>): Promise<T>;
  /** How far it has come: this run of the controller, and the number of the last commit. */
  position(): { run: string; sequence: number };
  /** How long controllers have run on this database, in milliseconds: what ages by it minds no clock. */
  elapsed(): number;
  file: string;
  /** Copies what is committed into another file, while reads go on; writes wait for that. */
  copyTo(file: string): Promise<void>;
  /** Checks the database since something `found` speaks against it: where that is so, nothing is written to it any more. Returns the error to throw. */
  doubt(found: string): CisternError;
  /** Writes what is queued, and closes the file. */
  close(): Promise<void>;
}

interface Job {
  /** Alone in its transaction: throws where the job does, which rolls that back. */
  run(trx: Trx): Promise<void>;
  /** One of several: rolled back by itself. */
  runAmong(trx: Trx): Promise<void>;
  settle(failure?: unknown): void;
}

const MIGRATIONS: Record<string, readonly string[]> = {
  '001-start': statements,
  '002-time': time,
  '003-access': access,
  '004-damage': damage,
  '005-limits': limits,
  '006-join': join,
  '007-volume-paths': volumePaths,
  '008-levels': levels,
};

export interface DatabaseOptions {
  /** Told how long each shared commit took, and how many jobs were in it. */
  onCommit?: (seconds: number, jobs: number) => void;
  /** Told once, where the database turns out to be damaged while it is in use. */
  onDamage?: (error: CisternError) => void;
}

/**
 * Opens the controller's database and brings its schema up to date. DATABASE_DAMAGED where it is not sound: see `examine`. Where that
 * shows while it is in use, every later write is refused, so that damage does not spread; what can be read still is.
 */
export async function openDatabase(file: string, { onCommit, onDamage }: DatabaseOptions = {}): Promise<Database> {
  const { doubtful } = examine(file);
  const sqlite = openSqlite(file);
  if (doubtful)
    try {
      checkStructure(sqlite, file);
    } catch (error) {
      sqlite.close();
      throw error;
    }
  forgetClosed(file);
  let condemned: CisternError | undefined;
  /** A write failed on the disk: what memory holds of the file is not to be written over. */
  let suspect = false;
  const condemn = (found: string, cause?: Error): CisternError => {
    const error = damaged(file, found, cause);
    if (!condemned) onDamage?.((condemned = error));
    return error;
  };
  const db = new Kysely<Tables>({
    dialect: sqliteDialect(
      sqlite,
      cause => condemn(cause.message, cause),
      () => (suspect = true),
    ),
  });
  await migrate(db);
  const run = newId();
  const clock = await beginRun(db, run);
  let { sequence } = clock;
  let queue: Job[] = [];
  let flushing: Promise<void> | undefined;
  /** The transaction or the copy under way. */
  let busy: Promise<unknown> = Promise.resolve();
  const alone = <T>(work: () => Promise<T>): Promise<T> => {
    const turn = busy.then(work, work);
    busy = turn;
    return turn;
  };

  const flush = async (): Promise<void> => {
    while (queue.length > 0) {
      const jobs = queue;
      queue = [];
      const began = performance.now();
      try {
        if (suspect) {
          await alone(() => forgetPages(file));
          suspect = false;
        }
        await alone(() =>
          db.transaction().execute(async trx => {
            if (condemned) throw condemned;
            await trx
              .updateTable('controller')
              .set({ sequence: sequence + 1, elapsed: clock.elapsed() })
              .execute();
            if (jobs.length === 1) await jobs[0]!.run(trx);
            else for (const job of jobs) await job.runAmong(trx);
          }),
        );
        sequence++;
        for (const job of jobs) job.settle();
      } catch (cause) {
        const failure = condemned ?? wrapError(cause, 'DATABASE_UNAVAILABLE', 'writing the database');
        for (const job of jobs) job.settle(failure);
      }
      onCommit?.((performance.now() - began) / 1000, jobs.length);
      // what waits for these commits goes first, so that what it asks for joins the next one
      await new Promise(resolve => setImmediate(resolve));
    }
    flushing = undefined;
  };

  return {
    read: db,
    write: job =>
      new Promise((resolve, reject) => {
        queue.push(toJob(job, resolve, reject));
        flushing ??= new Promise<void>(next => setImmediate(next)).then(flush);
      }),
    position: () => ({ run, sequence }),
    elapsed: clock.elapsed,
    file,
    copyTo: to => alone(async () => void (await backup(sqlite, to))),
    doubt(found) {
      const own = problems(sqlite, 'quick_check');
      return own === undefined
        ? new CisternError('DATABASE_UNAVAILABLE', `checking the database ${file}: ${found}`)
        : condemn(own);
    },
    close: async () => {
      await flushing;
      await busy.catch(() => undefined);
      await db.destroy();
      if (!condemned) noteClosed(file);
    },
  };
}

function toJob<T>(job: (trx: Trx) => Promise<T>, resolve: (value: T) => void, reject: (error: unknown) => void): Job {
  let outcome: { value: T } | { error: unknown } | undefined;
  return {
    async run(trx) {
      try {
        outcome = { value: await job(trx) };
      } catch (error) {
        outcome = { error };
        throw error;
      }
    },
    async runAmong(trx) {
      await sql`savepoint job`.execute(trx);
      await this.run(trx).catch(() => sql`rollback to savepoint job`.execute(trx));
      await sql`release savepoint job`.execute(trx);
    },
    settle(failure) {
      if (outcome && 'error' in outcome) reject(outcome.error);
      else if (failure !== undefined || !outcome) reject(failure);
      else resolve(outcome.value);
    },
  };
}

/** Notes that a controller begins to work on this database; returns where that is, and the clock that goes on from there. */
async function beginRun(db: Kysely<Tables>, run: string): Promise<{ sequence: number; elapsed: () => number }> {
  const opened = performance.now();
  const { sequence, elapsed } = await db.selectFrom('controller').select(['sequence', 'elapsed']).executeTakeFirstOrThrow();
  await db.insertInto('runs').values({ id: run, sequence }).execute();
  return { sequence, elapsed: () => Math.round(elapsed + performance.now() - opened) };
}

async function migrate(db: Kysely<Tables>): Promise<void> {
  await sql`create table if not exists migrations (name text primary key, applied_at text not null)`.execute(db);
  const applied = new Set((await db.selectFrom('migrations').select('name').execute()).map(row => row.name));
  for (const [name, list] of Object.entries(MIGRATIONS)) {
    if (applied.has(name)) continue;
    await db.transaction().execute(async trx => {
      for (const statement of list) await sql.raw(statement).execute(trx);
      await trx.insertInto('migrations').values({ name, applied_at: new Date().toISOString() }).execute();
    });
  }
}
