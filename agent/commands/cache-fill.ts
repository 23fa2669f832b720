import { fillCache } from '../image-cache.ts';
import type { Handler } from './handler.ts';

export const fillImageCache: Handler<'cache.fill'> = async ({ pool, image, stores }, ctx) =>
  fillCache(await ctx.pool(pool), image, stores, ctx);
