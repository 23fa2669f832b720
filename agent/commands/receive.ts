import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { ImportSource } from '../../shared/commands/image.ts';
import { CisternError } from '../../shared/errors.ts';
import { fetchToFile } from '../host/fetch.ts';
import { throwIfAborted } from '../host/run.ts';
import { spoolError } from '../host/spool-error.ts';
import { fileSink } from '../transfer/file-end.ts';
import { transfer } from '../transfer/transfer.ts';
import type { TaskContext } from './handler.ts';

/** An image file in the spool, just as it came. */
export interface Received {
  path: string;
  size: number;
  sha256: string;
}

/** Brings the bytes of an image into the spool, wherever they come from. IMAGE_TOO_LARGE, URL_*, STORE_*, OBJECT_MISSING, NO_CAPACITY. */
export function receive(source: ImportSource, spool: string, ctx: TaskContext): Promise<Received> {
  const target = join(spool, 'source');
  switch (source.type) {
    case 'url':
      return fromUrl(source.url, target, ctx);
    case 'upload':
      return uploaded(source.size, ctx);
    case 'object':
      return fromStore(source, target, ctx);
  }
}

async function fromUrl(url: string, target: string, ctx: TaskContext): Promise<Received> {
  const { importAllow: allow, maxImageSize: maxBytes, stallSeconds } = ctx.config;
  const { signal } = ctx;
  const progress = (done: number, total: number | null): void => ctx.progress('download', done, total, 'bytes');
  return { path: target, ...(await fetchToFile({ url, target, allow, maxBytes, stallSeconds, signal, progress })) };
}

async function uploaded(announced: number | null, ctx: TaskContext): Promise<Received> {
  const input = await ctx.input();
  if (announced !== null && input.size !== announced)
    throw new CisternError('IMAGE_TRUNCATED', `the upload should have ${announced} bytes, but ${input.size} came`);
  refuseLarge(input.size, 'the upload', ctx);
  return { path: input.path, size: input.size, sha256: input.sha256 };
}

async function fromStore(from: ImportSource & { type: 'object' }, target: string, ctx: TaskContext): Promise<Received> {
  const store = await ctx.store(from.store);
  const source = await store.source(from.path);
  refuseLarge(source.size, source.name, ctx);
  const sink = await fileSink({
    partial: `${target}.part`,
    final: target,
    size: source.size,
    mode: 0o600,
    codes: { full: 'NO_CAPACITY' },
  });
  await transfer({
    source,
    sink,
    streams: ctx.config.streams,
    stallSeconds: ctx.config.stallSeconds,
    signal: ctx.signal,
    progress: (done, total) => ctx.progress('download', done, total, 'bytes'),
  });
  return { path: target, size: source.size, sha256: await sha256(target, source.size, ctx) };
}

function refuseLarge(size: number, what: string, { config }: TaskContext): void {
  if (size <= config.maxImageSize) return;
  throw new CisternError(
    'IMAGE_TOO_LARGE',
    `${what} has ${size} bytes; at most ${config.maxImageSize} are taken (maxImageSize in the agent's configuration)`,
  );
}

/** Parts of a transfer arrive in any order, so the digest of the whole is taken afterwards. */
async function sha256(path: string, size: number, ctx: TaskContext): Promise<string> {
  const hash = createHash('sha256');
  let done = 0;
  try {
    await pipeline(
      createReadStream(path, { highWaterMark: 2 ** 20 }),
      async chunks => {
        for await (const chunk of chunks as AsyncIterable<Buffer>) {
          hash.update(chunk);
          ctx.progress('checksum', (done += chunk.length), size, 'bytes');
        }
      },
      { signal: ctx.signal },
    );
  } catch (error) {
    throwIfAborted(ctx.signal);
    throw spoolError(error, `reading ${path}`);
  }
  return hash.digest('hex');
}
