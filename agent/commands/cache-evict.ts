import type { Handler } from './handler.ts';

export const evictImage: Handler<'cache.evict'> = async ({ pool, imageId }, ctx) => (await ctx.pool(pool)).evict(imageId);
