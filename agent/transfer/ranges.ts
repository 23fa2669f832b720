/** The way of parallel ranges: lanes side by side, each with its own reader and writer, that share one list of parts. */
import type { CisternError } from '../../shared/errors.ts';
import { runLane } from './lane.ts';
import type { Job, Moving } from './moving.ts';
import { partRange, partsToMove, ZERO, type PartDigest } from './parts.ts';
import type { Plan } from './plan.ts';
import { makeQueue } from './queue.ts';

export interface RangesMoved {
  parts: PartDigest[];
  streams: number;
  /** Bytes of parts that an earlier attempt had brought. */
  resumed: number;
  /** Times that a lane was begun anew after a failure. */
  retries: number;
}

/**
 * Moves every part that is neither known to be zero nor in the sink already. Digests come back in the order of the parts.
 * The counter in `moving` grows by two for each byte, once as it is read and once as it is written.
 */
export async function moveRanges(job: Job, plan: Plan & { lane: 'ranges' }, moving: Moving): Promise<RangesMoved> {
  const { source, sink, partSize } = job;
  const kept = sink.kept ?? new Map<number, PartDigest>();
  const isThere = (part: number): boolean => job.parts !== undefined && kept.get(part) === job.parts[part];
  const numbers = partsToMove(job.count, job.parts).filter(part => !isThere(part));
  const parts = job.parts ? [...job.parts] : Array.from({ length: job.count }, () => ZERO);
  const streams = Math.min(job.streams, numbers.length);
  const before = skip(job, numbers, moving);
  const result: RangesMoved = { parts, streams, resumed: 0, retries: 0 };
  const lengthOf = (part: number): number => partRange(part, source.size, partSize).length;
  for (const part of before) if (isThere(part)) result.resumed += lengthOf(part);
  if (streams === 0) return result;

  const queue = makeQueue(numbers, streams);
  const failed = new AbortController();
  const signal = AbortSignal.any([moving.signal, failed.signal]);
  const thread = {
    name: source.name,
    size: source.size,
    partSize,
    expected: job.parts,
    offsets: source.offsets && new Float64Array(source.offsets),
    kept,
    todo: queue.todo,
    control: queue.control,
    moved: moving.counter,
  };
  const done = (part: number, digest: PartDigest): void => {
    parts[part] = digest;
    if (digest !== ZERO && kept.get(part) === digest) result.resumed += lengthOf(part);
    else sink.arrived?.(part, digest);
  };
  const again = (_error: CisternError): void => void result.retries++;
  const lanes = Array.from({ length: streams }, (_, lane) =>
    runLane({ lane, plan, queue, job: thread, signal, done, failed: again }).catch((error: unknown) => {
      failed.abort(error); // keeps the first reason
      throw error;
    }),
  );
  // all of them have let go of their ends before anybody removes what has arrived
  await Promise.allSettled(lanes);
  signal.throwIfAborted();
  return result;
}

/** Counts the parts that need not move as moved; returns them. */
function skip(job: Job, numbers: readonly number[], { counter }: Moving): number[] {
  const moves = new Set(numbers);
  const skipped = Array.from({ length: job.count }, (_, part) => part).filter(part => !moves.has(part));
  const bytes = skipped.reduce((sum, part) => sum + partRange(part, job.source.size, job.partSize).length, 0);
  Atomics.add(counter, 0, BigInt(2 * bytes));
  return skipped;
}
