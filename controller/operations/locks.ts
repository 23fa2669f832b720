import { EventEmitter, once } from 'node:events';
import type { Database, Trx } from '../db/database.ts';

/** Another controller on the same database may have let go of a lock without this process hearing of it. */
const RECHECK_MS = 1000;

/** Named locks that belong to operations and outlive the process. */
export interface Locks {
  /** Waits until the operation holds all of `names`; `onWait` is told of those that another one has. */
  take(operationId: string, names: string[], signal: AbortSignal, onWait: (name: string) => void): Promise<void>;
  /** Lets go of all locks of an operation, as part of the transaction of its end; `released` is to be called after it. */
  release(trx: Trx, operationId: string): Promise<void>;
  released(): void;
}

export function createLocks(db: Database): Locks {
  const emitter = new EventEmitter();
  emitter.setMaxListeners(0);
  const tryTake = (operationId: string, name: string): Promise<boolean> =>
    db.write(async trx => {
      const holder = await trx.selectFrom('locks').select('operation_id').where('name', '=', name).executeTakeFirst();
      if (holder) return holder.operation_id === operationId;
      await trx.insertInto('locks').values({ name, operation_id: operationId, taken_at: new Date().toISOString() }).execute();
      return true;
    });
  return {
    async take(operationId, names, signal, onWait) {
      for (const name of [...new Set(names)].sort()) {
        while (!(await tryTake(operationId, name))) {
          onWait(name);
          const recheck = AbortSignal.any([signal, AbortSignal.timeout(RECHECK_MS)]);
          await once(emitter, 'released', { signal: recheck }).catch(() => {});
          signal.throwIfAborted();
        }
      }
    },
    release: async (trx, operationId) => void (await trx.deleteFrom('locks').where('operation_id', '=', operationId).execute()),
    released: () => void emitter.emit('released'),
  };
}
