import { sql } from 'kysely';
import type { Position } from '../../shared/position.ts';
import type { Reader } from '../db/database.ts';
import type { Row } from '../db/schema.ts';
import type { Services } from '../services.ts';

/** Whether a position that an agent has seen lies in this database's own past. */
async function isOurs(db: Reader, seen: Position, now: Position): Promise<boolean> {
  if (seen.run === now.run) return seen.sequence <= now.sequence;
  const place = sql<number>`rowid`;
  const run = await db.selectFrom('runs').select(place.as('place')).where('id', '=', seen.run).executeTakeFirst();
  if (!run) return false;
  // a run ended where the next one began
  const next = await db.selectFrom('runs').select('sequence').where(place, '>', run.place).orderBy(place).executeTakeFirst();
  return seen.sequence <= (next?.sequence ?? now.sequence);
}

/**
 * Asks an agent which run of the controller it serves. Where that is none of this database's past, the database is older than the
 * work that was done, and must be recovered. Returns the position to make known to the agent; undefined while there is none to tell.
 */
export async function meetAgent(services: Services, host: Row<'hosts'>, seen: Position | null): Promise<Position | undefined> {
  const { db, recovery } = services;
  const now = db.position();
  if (seen && !host.adopt && !(await isOurs(db.read, seen, now)))
    recovery.enter(
      `host ${host.name} has seen commit ${seen.sequence} of run ${seen.run} of the controller, which this database does not have: it was put back to an old copy, or another controller works in its place`,
    );
  return recovery.current() ? undefined : db.position();
}
