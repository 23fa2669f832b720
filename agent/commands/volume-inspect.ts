import { info } from '../host/qemu-img.ts';
import type { Handler } from './handler.ts';

export const inspectVolume: Handler<'volume.inspect'> = async ({ pool, volumeId, layerId }, ctx) => {
  await using file = await (await ctx.pool(pool)).volumeFile(volumeId, layerId);
  return { size: (await info(file, ctx.signal)).virtualSize };
};
