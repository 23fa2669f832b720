import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { convert, info } from '../host/qemu-img.ts';
import type { Handler } from './handler.ts';
import { publishToAll } from './publish.ts';

/** Flattens a volume into a file that stands alone and publishes it. VOLUME_IN_USE while a program has it open for writing. */
export const uploadVolume: Handler<'volume.upload'> = async ({ pool: ref, volumeId, layerId, image, compress, stores }, ctx) => {
  const pool = await ctx.pool(ref);
  const source = await pool.volumeFile(volumeId, layerId);
  const { virtualSize } = await info(source, ctx.signal);
  const target = join(await ctx.spool(), `${image.id}.${image.format}`);
  await convert({
    source,
    target,
    targetFormat: image.format,
    compress: compress && image.format === 'qcow2', // a raw file has no way to hold compressed bytes
    virtualSize,
    signal: ctx.signal,
    progress: (done, total) => ctx.progress('flatten', done, total, 'percent'),
  });
  const published = await publishToAll(target, { ...image, virtualSize }, stores, ctx);
  await rm(target, { force: true });
  return published;
};
