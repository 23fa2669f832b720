import type { Handler } from './handler.ts';

/** Removes for good what went to the trash before a time. */
export const purgePool: Handler<'pool.purge'> = async ({ pool, before }, ctx) =>
  (await ctx.pool(pool)).purge(new Date(before), ctx.signal);
