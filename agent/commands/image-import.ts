import { rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { CisternError } from '../../shared/errors.ts';
import { compressionOf, decompress } from '../host/decompress.ts';
import { inspectImage } from '../host/inspect.ts';
import { spoolError } from '../host/spool-error.ts';
import { expansionLimit, makeFresh } from './fresh.ts';
import type { Handler, TaskContext } from './handler.ts';
import { publishToAll } from './publish.ts';
import { receive } from './receive.ts';

/**
 * Takes an image in. No qemu program sees it before the inspector has judged its header, and what is published is a fresh file that
 * holds nothing of the original but the bytes that a guest sees, also where format and wish are the same. Every file goes as soon as
 * the next one is made, since the spool must hold two of them.
 */
export const importImage: Handler<'image.import'> = async (input, ctx) => {
  const { image, source, sourceFormat, expectedSha256, stores } = input;
  const spool = await ctx.spool();
  const came = await receive(source, spool, ctx);
  if (expectedSha256 !== null && came.sha256 !== expectedSha256)
    throw new CisternError(
      'IMAGE_CHECKSUM',
      `the ${came.size} bytes that came have the SHA-256 ${came.sha256}, expected was ${expectedSha256}`,
    );
  const plain = await unpack(came.path, join(spool, 'unpacked'), ctx);
  ctx.progress('inspect', 0, null);
  const { maxVirtualSize, maxImageSize } = ctx.config;
  const found = await inspectImage(plain, { declared: sourceFormat, maxVirtualSize, maxImageSize });
  const target = join(spool, `image.${image.format}`);
  await makeFresh(
    {
      // should the inspector ever err, qemu still opens no backing file that the image names
      source: { path: plain, format: found.format, backing: null },
      target,
      format: image.format,
      virtualSize: found.virtualSize,
      stage: 'convert',
      untrusted: { maxBytes: expansionLimit(found.size, ctx.config) },
    },
    ctx,
  );
  await rm(plain);
  const published = await publishToAll(target, { ...image, virtualSize: found.virtualSize }, stores, ctx);
  await rm(target);
  return { ...published, sourceFormat: found.format, sourceSha256: came.sha256 };
};

/** Takes one layer of compression off, where there is one; the packed file goes. */
async function unpack(path: string, target: string, ctx: TaskContext): Promise<string> {
  const compression = await compressionOf(path);
  if (compression === null) return path;
  const { size } = await stat(path).catch((error: unknown) => {
    throw spoolError(error, `opening ${path}`);
  });
  await decompress({
    source: path,
    compression,
    target,
    maxBytes: ctx.config.maxImageSize,
    maxRatio: expansionLimit(size, ctx.config) / size,
    signal: ctx.signal,
    progress: (done, total) => ctx.progress('decompress', done, total, 'bytes'),
  });
  await rm(path);
  return target;
}
