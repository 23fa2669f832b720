import { CisternError } from '../shared/errors.ts';
import type { Logger } from '../shared/log.ts';
import type { Database, Trx } from './db/database.ts';

export interface RecoveryReason {
  since: string;
  reason: string;
}

/**
 * Whether the database must be recovered: a host has seen a later state of it than it has, as where it was put back to an old copy.
 * Then nothing is resumed, undone, purged, evicted or swept up, and no work begun, until an operator has looked and said
 * `cistern controller resume`. It is kept in the database, so it stays over restarts.
 */
export interface Recovery {
  current(): RecoveryReason | null;
  /** Stops all work at once; nothing where it is so already. */
  enter(reason: string): void;
  /** As a part of the transaction that recovers; `left` is to be called after it. */
  leave(trx: Trx): Promise<void>;
  left(): void;
  /** CONTROLLER_OUTDATED while the database must be recovered. */
  refuse(): void;
}

export async function createRecovery(db: Database, log: Logger, stopWork: () => void): Promise<Recovery> {
  const row = await db.read.selectFrom('controller').select('recovery_json').executeTakeFirstOrThrow();
  let current = row.recovery_json === null ? null : (JSON.parse(row.recovery_json) as RecoveryReason);
  return {
    current: () => current,
    enter(reason) {
      if (current) return;
      const entered = (current = { since: new Date().toISOString(), reason });
      stopWork();
      log.error(
        { reason },
        'the database is older than what its hosts have seen: all work stops until "cistern controller resume"',
      );
      db.write(trx =>
        trx
          .updateTable('controller')
          .set({ recovery_json: JSON.stringify(entered) })
          .execute(),
      ).catch((error: unknown) => log.error({ err: error }, 'that the database must be recovered could not be written down'));
    },
    leave: async trx => void (await trx.updateTable('controller').set({ recovery_json: null }).execute()),
    left: () => void (current = null),
    refuse() {
      if (current) throw new CisternError('CONTROLLER_OUTDATED', current.reason);
    },
  };
}
