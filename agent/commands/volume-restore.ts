import type { Handler } from './handler.ts';

export const restoreVolumes: Handler<'volume.restore'> = async ({ pool, volumeIds }, ctx) => ({
  restored: await (await ctx.pool(pool)).restore(volumeIds),
});
