import { CisternError } from '../../shared/errors.ts';
import type { TransferSummary } from '../../shared/commands/refs.ts';
import type { z } from 'zod';
import { shown } from '../host/held.ts';
import { EndError } from './end-error.ts';
import type { Sink, Source } from './ends.ts';
import { moveByCopy } from './copy.ts';
import { flusher } from './flusher.ts';
import type { Job, Moving } from './moving.ts';
import { PART_SIZE, partCount, partRange, ZERO, type PartDigest } from './parts.ts';
import { plan } from './plan.ts';
import { moveRanges, type RangesMoved } from './ranges.ts';
import { moveStream } from './stream.ts';
import { moveByTool } from './tool.ts';
import { isPassing } from './retry.ts';
import { watch } from './watch.ts';

type Summary = z.output<typeof TransferSummary>;

export interface TransferOptions {
  source: Source;
  sink: Sink;
  /** What the parts must be, from the manifest. Missing: whatever arrives is taken, and its digests are the result. */
  parts?: readonly PartDigest[];
  /** Bytes of a part, if `parts` was cut to another size than PART_SIZE. */
  partSize?: number;
  /** Parallel streams at most. Each takes a thread, and one part of memory. */
  streams: number;
  /** Seconds without a byte after which it is given up with TRANSFER_STALLED. */
  stallSeconds: number;
  signal: AbortSignal;
  /** Called a few times a second with bytes done and the size. */
  progress?: (done: number, total: number) => void;
}

/**
 * Moves `source` into `sink` by the best lane both have, verifying each part that `parts` tells. It owns the sink from the call on:
 * when this returns, the object is published; when it throws, nothing shows, and what has arrived is kept where the sink can keep it and
 * a later attempt could use it.
 * Throws the signal's reason on cancel, TRANSFER_NO_LANE, TRANSFER_STALLED, DIGEST_MISMATCH, and whatever the ends throw.
 */
export async function transfer(options: TransferOptions): Promise<{ parts: PartDigest[]; summary: Summary }> {
  const { source, sink } = options;
  const begun = performance.now();
  let moved: Awaited<ReturnType<typeof move>>;
  try {
    moved = await move(options);
    options.signal.throwIfAborted();
  } catch (thrown) {
    const error = thrown instanceof EndError ? new CisternError(thrown.code, shown(thrown.message), { cause: thrown }) : thrown;
    if (sink.park && mayGoOn(error, options.signal)) await letGo(sink, error, 'keeping', sink.park);
    else await letGo(sink, error, 'removing', sink.abort);
    throw error;
  }
  await sink.publish(moved.parts);
  options.progress?.(source.size, source.size);
  const { parts, lane, streams, resumed, retries } = moved;
  const partSize = options.partSize ?? PART_SIZE;
  const zero = bytesOf(parts, source.size, partSize);
  const summary = {
    lane,
    streams,
    parts: parts.length,
    zeroParts: parts.filter(part => part === ZERO).length,
    bytes: source.size,
    zeroBytes: zero,
    resumed,
    moved: lane === 'copy' ? 0 : source.size - resumed - (lane === 'ranges' ? zero : 0),
    retries,
    seconds: (performance.now() - begun) / 1000,
  };
  return { parts, summary };
}

async function move(options: TransferOptions): Promise<RangesMoved & { lane: string }> {
  const { source, sink, signal } = options;
  signal.throwIfAborted();
  const partSize = options.partSize ?? PART_SIZE;
  const count = partCount(source.size, partSize);
  if (options.parts && options.parts.length !== count) {
    throw new CisternError(
      'DIGEST_MISMATCH',
      `reading ${source.name}: it has ${count} parts (${source.size} bytes), the manifest ${options.parts.length}`,
    );
  }
  const counter = new BigInt64Array(new SharedArrayBuffer(8));
  // what moved twice, because the first time was cut short, counts once
  const done = (): number => Math.min(source.size, Math.floor(Number(Atomics.load(counter, 0)) / 2));
  const flushing = flusher(sink);
  using watching = watch({
    name: `${source.name} to ${sink.name}`,
    moved: () => Number(Atomics.load(counter, 0)),
    stallSeconds: options.stallSeconds,
    signal,
    tick: () => {
      options.progress?.(done(), source.size);
      flushing.tick(done());
    },
  });
  const job: Job = { source, sink, count, partSize, parts: options.parts, streams: options.streams };
  const moving: Moving = { signal: watching.signal, counter };
  const moved = await go(job, moving);
  await flushing.settle();
  return moved;
}

async function go(job: Job, moving: Moving): Promise<RangesMoved & { lane: string }> {
  const { place: _, ...elsewhere } = job.source;
  // a copy is only as good as what it is compared with
  const way = plan(job.parts ? job.source : elsewhere, job.sink);
  switch (way.lane) {
    case 'copy': {
      const moved = await moveByCopy(job, way, moving);
      return moved ? { ...moved, lane: 'copy' } : go({ ...job, source: elsewhere }, moving);
    }
    case 'tool':
      return { ...(await moveByTool(job, way, moving)), lane: way.tool.name };
    case 'ranges':
      return { ...(await moveRanges(job, way, moving)), lane: 'ranges' };
    case 'stream':
      return { ...(await moveStream(job, way, moving)), lane: 'stream' };
  }
}

/** Bytes of the parts of zeros. */
const bytesOf = (parts: readonly PartDigest[], size: number, partSize: number): number =>
  parts.reduce((sum, part, i) => (part === ZERO ? sum + partRange(i, size, partSize).length : sum), 0);

/** Whether another attempt may go on with what has arrived. What failed for another reason leaves nothing: its room may be wanted. */
const mayGoOn = (error: unknown, { aborted }: AbortSignal): boolean =>
  aborted || isPassing(error) || (error instanceof CisternError && error.code === 'TRANSFER_STALLED');

/** Ends a sink after a failure; where that fails too, both failures are told. */
async function letGo(sink: Sink, error: unknown, what: 'keeping' | 'removing', how: () => Promise<void>): Promise<void> {
  try {
    await how();
  } catch (second) {
    const [first, then] = [error, second].map(e => (e instanceof Error ? e.message : String(e)));
    const code = error instanceof CisternError ? error.code : 'INTERNAL';
    throw new CisternError(code, `${first}; and ${what} what had arrived in ${sink.name} failed too: ${then}`, { cause: error });
  }
}
