import { createReadStream, type ReadStream } from 'node:fs';
import { open, rm, stat } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createZstdDecompress, type Gunzip, type ZstdDecompress } from 'node:zlib';
import { CisternError } from '../../shared/errors.ts';
import { CAGE_PROCESSES, caged } from './cage.ts';
import { run, throwIfAborted } from './run.ts';
import { writeSparse } from './sparse.ts';
import { spoolError } from './spool-error.ts';
import { zstdFrames } from './zstd-frames.ts';

export type Compression = 'gz' | 'xz' | 'zst';

const CHUNK = 256 * 1024;

export interface DecompressOptions {
  source: string;
  compression: Compression;
  /** Absolute path of a file that is not there yet. */
  target: string;
  /** More than so many bytes is IMAGE_TOO_LARGE. */
  maxBytes: number;
  /** More than so many times the compressed size is IMAGE_RATIO. */
  maxRatio: number;
  signal?: AbortSignal | undefined;
  /** In bytes of the compressed file. */
  progress?: (done: number, total: number) => void;
}

/** By what a file is compressed, by its first bytes; null: not at all. (RFC 1952, the .xz specification 1.2, RFC 8878 with its skippable frames.) */
export async function compressionOf(path: string): Promise<Compression | null> {
  try {
    await using file = await open(path, 'r');
    const { buffer, bytesRead } = await file.read(Buffer.alloc(6), 0, 6, 0);
    const magic = buffer.subarray(0, bytesRead).toString('hex');
    if (magic.startsWith('1f8b')) return 'gz';
    if (magic === 'fd377a585a00') return 'xz';
    return /^(28b52ffd|5[0-9a-f]2a4d18)/.test(magic) ? 'zst' : null;
  } catch (error) {
    throw spoolError(error, `reading ${path}`);
  }
}

/**
 * Takes one layer of compression off a file into a new one, with holes where it is zero. On failure or cancel the target is gone.
 * Throws IMAGE_TRUNCATED, IMAGE_CORRUPT, IMAGE_TOO_LARGE, IMAGE_RATIO, NO_CAPACITY, IO_ERROR, TOOL_MISSING (xz), CANCELLED.
 */
export async function decompress(options: DecompressOptions): Promise<{ size: number }> {
  const { source, target, compression, signal } = options;
  throwIfAborted(signal);
  const tried = `decompressing ${source} (${compression})`;
  let claimed = false;
  try {
    const compressed = (await stat(source)).size;
    await using output = await open(target, 'wx');
    claimed = true;
    if (compressed === 0) throw new CisternError('IMAGE_TRUNCATED', `${tried}: the file is empty`);
    let size = 0;
    const write = async (chunks: AsyncIterable<Uint8Array>): Promise<void> =>
      void (size = await writeSparse(output, chunks, limit(options, compressed)));
    const read: Read = (start, end) =>
      counted(createReadStream(source, { start, end: end - 1, highWaterMark: CHUNK }), start, compressed, options);
    if (compression === 'gz') await write(gunzip(read(0, compressed), compressed, options));
    else if (compression === 'zst') await write(unzstd(read, options));
    else await unxz(read(0, compressed), write, options);
    return { size };
  } catch (error) {
    if (claimed) await rm(target, { force: true });
    throwIfAborted(signal);
    throw meaning(error, tried);
  }
}

type Read = (start: number, end: number) => ReadStream;

function counted(stream: ReadStream, start: number, total: number, options: DecompressOptions): ReadStream {
  let done = start;
  if (options.progress !== undefined)
    stream.on('data', chunk => options.progress?.(Math.min((done += chunk.length), total), total)).pause();
  return stream;
}

/** The bound on what comes out, said before it is written. */
const limit = (options: DecompressOptions, compressed: number) => (size: number) => {
  const { source, maxBytes, maxRatio } = options;
  if (size > maxBytes)
    throw new CisternError(
      'IMAGE_TOO_LARGE',
      `${source} decompresses to more than the ${maxBytes} bytes that are taken (maxImageSize in the agent's configuration)`,
    );
  if (size > compressed * maxRatio)
    throw new CisternError(
      'IMAGE_RATIO',
      `${source} decompresses to more than ${maxRatio} times its ${compressed} bytes (maxExpansion in the agent's configuration)`,
    );
};

/** What comes out of a decoder; it may end before its input does. */
async function* through(input: ReadStream, decoder: Gunzip | ZstdDecompress, signal: AbortSignal | undefined) {
  // Its failure reaches the one who reads the decoder.
  const feeding = pipeline(input, decoder, { signal }).catch((error: unknown) => void decoder.destroy(error as Error));
  try {
    yield* decoder as AsyncIterable<Uint8Array>;
  } finally {
    decoder.destroy();
    await feeding;
  }
}

/** The data of a .gz file. Node's decoder ends silently at the first zero between two members: behind it may be zeros only, as on a tape. */
async function* gunzip(input: ReadStream, compressed: number, { source, signal }: DecompressOptions): AsyncGenerator<Uint8Array> {
  const decoder = createGunzip({ chunkSize: CHUNK });
  yield* through(input, decoder, signal);
  const start = decoder.bytesWritten;
  if (start >= compressed) return;
  for await (const chunk of createReadStream(source, { start, highWaterMark: CHUNK, signal }) as AsyncIterable<Buffer>)
    if (chunk.some(byte => byte !== 0))
      throw new CisternError('IMAGE_CORRUPT', `${source} (gz): no member begins at byte ${start}`);
}

/**
 * A frame takes a decoder of its own, which costs as much as 16 KiB of data at the pace of a slow disk: so many bytes, in the file or
 * out of it, must come with each, once there were as many as take a few seconds. Compressors put 512 KiB and more of data in a frame.
 */
const FRAME = { free: 2000, bytes: 16 * 1024 };

/** The data of a .zst file, one decoder for each frame. */
async function* unzstd(read: Read, { source, signal }: DecompressOptions): AsyncGenerator<Uint8Array> {
  let frames = 0;
  let size = 0;
  for await (const { start, end } of zstdFrames(source, signal)) {
    if (++frames > FRAME.free + (end + size) / FRAME.bytes)
      throw new CisternError(
        'IMAGE_RATIO',
        `${source} (zst) has ${frames} frames in its first ${end} bytes, for ${size} bytes of data: nothing that compresses makes so many`,
      );
    for await (const chunk of through(read(start, end), createZstdDecompress({ chunkSize: CHUNK }), signal)) {
      size += chunk.length;
      yield chunk;
    }
  }
}

/** Memory of xz -9 is 65 MiB a thread; a file that asks for more than this was made to hurt. */
const XZ_MEMORY = 512;

async function unxz(
  input: ReadStream,
  write: (chunks: AsyncIterable<Uint8Array>) => Promise<void>,
  options: DecompressOptions,
): Promise<void> {
  const args = ['--decompress', '--stdout', '--no-warn', `--memlimit=${XZ_MEMORY}MiB`, '--threads=2'];
  // Even the slowest host of use unpacks more than 4 MiB a second.
  const seconds = 600 + Math.ceil(options.maxBytes / (4 * 2 ** 20));
  // it reads and writes streams only
  const limits = { addressSpace: (XZ_MEMORY + 1024) * 2 ** 20, cpuSeconds: seconds, fileSize: 0, processes: CAGE_PROCESSES };
  const { signal } = options;
  await caged('xz', {}, signal, within =>
    run('xz', args, { within, input, consume: write, signal, timeoutSeconds: seconds, limits }),
  );
}

/** What zlib, zstd and xz say, as what it means for the image. */
function meaning(error: unknown, tried: string): CisternError {
  if (error instanceof CisternError && error.code !== 'TOOL_FAILED') return error;
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  const said =
    error instanceof CisternError ? String(error.cause).trim() : error instanceof Error ? error.message : String(error);
  const as = (kind: 'IMAGE_TRUNCATED' | 'IMAGE_CORRUPT' | 'IMAGE_TOO_LARGE'): CisternError =>
    new CisternError(kind, `${tried}: ${said}`, { cause: error });
  if (code === 'Z_BUF_ERROR' || /Unexpected end of input/.test(said)) return as('IMAGE_TRUNCATED');
  if (/windowTooLarge/.test(code) || /Memory usage limit/.test(said)) return as('IMAGE_TOO_LARGE');
  if (/^(Z_|ZSTD_error)/.test(code) || /corrupt|not recognized|Unsupported/.test(said)) return as('IMAGE_CORRUPT');
  return spoolError(error, tried);
}
