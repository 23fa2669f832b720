import type { Handler } from './handler.ts';

export const scanPool: Handler<'pool.scan'> = async ({ pool }, ctx) => (await ctx.pool(pool)).scan(ctx.signal);
