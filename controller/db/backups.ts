import { once } from 'node:events';
import { chmodSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { syncPath } from '../../shared/durable.ts';
import { CisternError } from '../../shared/errors.ts';
import { backupsOf, isBackup } from './check.ts';
import type { Database } from './database.ts';
import { isDamage } from './damage.ts';

/** Backups that are kept; the oldest go. */
const KEPT = 7;

/**
 * Copies the database while it is in use to `backups/cistern-TIME.db` beside it (0600), and keeps the copy once it was checked from end to end.
 * A copy that is not sound takes no older one's place; where the database itself is the reason it is condemned. Returns the file.
 */
export async function backUp(db: Database, now = new Date()): Promise<string> {
  const folder = backupsOf(db.file);
  const draft = join(folder, '.draft.db');
  const clear = (): void => ['', '-journal', '-wal', '-shm'].forEach(end => rmSync(draft + end, { force: true }));
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    chmodSync(folder, 0o700);
    clear();
    writeFileSync(draft, '', { mode: 0o600 });
    await db.copyTo(draft);
    const found = await check(draft);
    if (found !== null) throw db.doubt(`a copy of it was not sound: ${found}`);
    const name = `cistern-${now.toISOString().replaceAll(/[-:]|\.\d+/g, '')}.db`;
    syncPath(draft);
    renameSync(draft, join(folder, name));
    syncPath(folder);
    const all = readdirSync(folder).filter(isBackup).sort(); // prettier-ignore
    for (const old of all.slice(0, -KEPT)) rmSync(join(folder, old));
    return join(folder, name);
  } catch (error) {
    if (isDamage(error)) throw db.doubt(error.message);
    if (error instanceof CisternError) throw error;
    throw new CisternError('DATABASE_UNAVAILABLE', `backing the database up to ${folder}: ${(error as Error).message}`, {
      cause: error,
    });
  } finally {
    clear();
  }
}

async function check(file: string): Promise<string | null> {
  const worker = new Worker(new URL('./check-thread.ts', import.meta.url), { workerData: file, name: 'check' });
  const [found] = (await once(worker, 'message')) as [string | null];
  return found;
}
