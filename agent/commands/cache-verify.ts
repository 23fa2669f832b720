import type { Handler } from './handler.ts';

export const verifyCache: Handler<'cache.verify'> = async ({ pool: ref, image, bytesPerSecond }, ctx) => {
  const pool = await ctx.pool(ref);
  const { parts, read } = await pool.verifyImage(image.id, image.format, {
    full: true,
    bytesPerSecond,
    signal: ctx.signal,
    progress: (done, total) => ctx.progress('verify', done, total, 'bytes'),
  });
  return { parts, bytes: read };
};
