import { Kysely, sql, type Transaction } from 'kysely';
import { CisternError } from '../../shared/errors.ts';
import { newId } from '../../shared/id.ts';
import { statements } from './migrations/001-start.ts';
import { statements as time } from './migrations/002-time.ts';
import { statements as access } from './migrations/003-access.ts';
import type { Tables } from './schema.ts';
import { sqliteDialect } from './sqlite.ts';

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
  close(): Promise<void>;
}

interface Job {
  /** Alone in its transaction: throws where the job does, which rolls that back. */
  run(trx: Trx): Promise<void>;
  /** One of several: rolled back by itself. */
  runAmong(trx: Trx): Promise<void>;
  settle(failure?: unknown): void;
}

const MIGRATIONS: Record<string, readonly string[]> = { '001-start': statements, '002-time': time, '003-access': access };

/** Opens the controller's database and brings its schema up to date. `onCommit` is told how long each shared commit took. */
export async function openDatabase(
  file: string,
  onCommit: (seconds: number, jobs: number) => void = () => {},
): Promise<Database> {
  const db = new Kysely<Tables>({ dialect: sqliteDialect(file) });
  await migrate(db);
  const run = newId();
  const clock = await beginRun(db, run);
  let { sequence } = clock;
  let queue: Job[] = [];
  let flushing: Promise<void> | undefined;

  const flush = async (): Promise<void> => {
    while (queue.length > 0) {
      const jobs = queue;
      queue = [];
      const began = performance.now();
      try {
        await db.transaction().execute(async trx => {
          await trx
            .updateTable('controller')
            .set({ sequence: sequence + 1, elapsed: clock.elapsed() })
            .execute();
          if (jobs.length === 1) await jobs[0]!.run(trx);
          else for (const job of jobs) await job.runAmong(trx);
        });
        sequence++;
        for (const job of jobs) job.settle();
      } catch (cause) {
        const failure = new CisternError('DATABASE_UNAVAILABLE', `writing the database: ${(cause as Error).message}`, { cause });
        for (const job of jobs) job.settle(failure);
      }
      onCommit((performance.now() - began) / 1000, jobs.length);
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
    close: async () => {
      await flushing;
      await db.destroy();
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
