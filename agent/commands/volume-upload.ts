import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { info } from '../host/qemu-img.ts';
import { makeFresh } from './fresh.ts';
import type { Handler } from './handler.ts';
import { publishToAll } from './publish.ts';

/** Flattens a volume into a file that stands alone and publishes it. VOLUME_IN_USE while a program has it open for writing. */
export const uploadVolume: Handler<'volume.upload'> = async ({ pool: ref, volumeId, layerId, image, compress, stores }, ctx) => {
  const pool = await ctx.pool(ref);
  await using source = await pool.volumeFile(volumeId, layerId);
  await pool.verifyBase(volumeId, ctx.signal);
  const { virtualSize } = await info(source, ctx.signal);
  const target = join(await ctx.spool(), `image.${image.format}`);
  // a raw file has no way to hold compressed bytes
  const packed = compress && image.format === 'qcow2';
  await makeFresh({ source, target, format: image.format, compress: packed, virtualSize, stage: 'flatten' }, ctx);
  const published = await publishToAll(target, { ...image, virtualSize }, stores, ctx);
  await rm(target);
  return published;
};
