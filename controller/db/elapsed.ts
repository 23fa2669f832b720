import { type RawBuilder, sql } from 'kysely';

/** In a statement of a transaction: how long controllers have run on this database by now, in milliseconds. */
export const elapsedNow = (): RawBuilder<number> => sql<number>`(select elapsed from controller)`;
