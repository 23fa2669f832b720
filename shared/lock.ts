import { chmodSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { CisternError } from './errors.ts';

/**
 * Makes sure that a folder serves one process only; IN_USE where it has another. SQLite's exclusive lock on `FOLDER/lock` is what
 * Node has as a lock of the kernel: it goes with the process, however that ends, so there is no stale one to recover.
 */
export function lockFolder(folder: string, who: string): Disposable {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const file = join(folder, 'lock');
  const db = new DatabaseSync(file, { timeout: 0 });
  try {
    chmodSync(file, 0o600);
    db.exec('PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=MEMORY; BEGIN EXCLUSIVE');
  } catch (cause) {
    db.close();
    throw new CisternError('IN_USE', `${folder} belongs to ${who} that runs already (${(cause as Error).message})`, {
      cause,
      action: 'Stop the other one first, or use another folder.',
    });
  }
  return { [Symbol.dispose]: () => db.close() };
}
