import type { Handler } from './handler.ts';

export const deleteVolumes: Handler<'volume.delete'> = async ({ pool: ref, volumeIds, forGood = false }, ctx) => {
  const pool = await ctx.pool(ref);
  const trashed = await pool.trash(volumeIds, ctx.signal);
  if (forGood) await pool.discard(trashed);
  return { trashed };
};
