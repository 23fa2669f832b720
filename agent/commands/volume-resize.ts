import type { Handler } from './handler.ts';

const SECTOR = 512;

export const resizeVolume: Handler<'volume.resize'> = async ({ pool, volumeId, layerId, size }, ctx) =>
  (await ctx.pool(pool)).resizeVolume(volumeId, layerId, Math.ceil(size / SECTOR) * SECTOR, ctx.signal);
