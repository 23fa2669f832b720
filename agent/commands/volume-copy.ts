import type { Handler } from './handler.ts';

/** Copies a volume into another pool. VOLUME_IN_USE while a program has it open for writing; CACHE_DAMAGED where what it stands on is. */
export const copyVolume: Handler<'volume.copy'> = async ({ from, to, volume, backing }, ctx) => {
  const [source, target] = [await ctx.pool(from), await ctx.pool(to)];
  const version = await source.version(volume.id, volume.layerId);
  await using disk = await source.volumeFile(volume.id, volume.layerId);
  await source.verifyBase(volume.id, ctx.signal);
  const copied = await target.copyVolume(volume, disk, backing, {
    signal: ctx.signal,
    streams: ctx.config.streams,
    stallSeconds: ctx.config.stallSeconds,
    progress: ctx.progress,
  });
  return { ...copied, version };
};
