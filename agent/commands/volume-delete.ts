import type { Handler } from './handler.ts';

export const deleteVolumes: Handler<'volume.delete'> = async ({ pool, volumeIds }, ctx) => ({
  trashed: await (await ctx.pool(pool)).trash(volumeIds, ctx.signal),
});
