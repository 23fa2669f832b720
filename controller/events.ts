import { EventEmitter } from 'node:events';
import type { Event, ResourceRef } from '../shared/model.ts';
import { elapsedNow } from './db/elapsed.ts';
import type { Reader, Trx } from './db/database.ts';

/** The log of what happened, kept in the database and followed by event streams. */
export interface Events {
  /** `by`: name of the token that it was asked for with. */
  append(trx: Trx, type: string, resource: ResourceRef | null, message: string, by?: string): Promise<void>;
  /** Events after `seq`, oldest first. */
  list(db: Reader, after: number, limit: number): Promise<Event[]>;
  /** Calls `listener` after commits that may have added events; returns how to stop. */
  onChange(listener: () => void): () => void;
  /** To be called after each commit. */
  committed(): void;
}

export function createEvents(): Events {
  const emitter = new EventEmitter();
  emitter.setMaxListeners(0);
  let dirty = false;
  return {
    async append(trx, type, resource, message, by) {
      dirty = true;
      await trx
        .insertInto('events')
        .values({
          at: new Date().toISOString(),
          type,
          resource_kind: resource?.kind ?? null,
          resource_id: resource?.id ?? null,
          message,
          elapsed: elapsedNow(),
          asked_by: by ?? null,
        })
        .execute();
    },
    async list(db, after, limit) {
      const rows = await db.selectFrom('events').selectAll().where('seq', '>', after).orderBy('seq').limit(limit).execute();
      return rows.map(row => ({
        seq: row.seq,
        at: row.at,
        type: row.type,
        resource: row.resource_kind === null ? null : ({ kind: row.resource_kind, id: row.resource_id! } as ResourceRef),
        message: row.message,
        by: row.asked_by,
      }));
    },
    onChange(listener) {
      emitter.on('change', listener);
      return () => emitter.off('change', listener);
    },
    committed() {
      if (!dirty) return;
      dirty = false;
      emitter.emit('change');
    },
  };
}
