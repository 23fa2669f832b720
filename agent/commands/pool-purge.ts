import type { Handler } from './handler.ts';

/** Removes volumes in the trash for good. */
export const purgePool: Handler<'pool.purge'> = async ({ pool, volumeIds, before }, ctx) =>
  (await ctx.pool(pool)).purge(volumeIds, before === null ? null : new Date(before), ctx.signal);
