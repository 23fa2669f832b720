/** Checks a copy of the database in a thread of its own: it takes seconds. Sends what is wrong with it, or null. */
import { DatabaseSync } from 'node:sqlite';
import { parentPort, workerData } from 'node:worker_threads';
import { problems } from './check.ts';

const db = new DatabaseSync(workerData as string);
// a copy of a database with a write-ahead log has one too; without it, it is one file, to be copied by hand
db.exec('pragma locking_mode = exclusive; pragma journal_mode = delete');
const found = problems(db, 'integrity_check');
db.close();
parentPort!.postMessage(found ?? null);
