import type { Handler } from './handler.ts';

export const measurePool: Handler<'pool.usage'> = async ({ pool }, ctx) => (await ctx.pool(pool)).usage(ctx.signal);
