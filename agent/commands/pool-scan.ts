import type { Handler } from './handler.ts';

export const scanPool: Handler<'pool.scan'> = async ({ pool, check }, ctx) => (await ctx.pool(pool)).scan({ check }, ctx.signal);
