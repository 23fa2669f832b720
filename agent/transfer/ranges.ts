/** The lane of parallel ranges: N threads, each with its own reader and writer. */
import { Worker } from 'node:worker_threads';
import { CisternError } from '../../shared/errors.ts';
import { shown } from '../host/held.ts';
import type { RangeEnd } from './ends.ts';
import type { Job, Moving } from './moving.ts';
import { partsToMove, ZERO, type PartDigest } from './parts.ts';
import type { Plan } from './plan.ts';
import { STOP, type ThreadJob, type ThreadReport } from './thread-job.ts';

/** How long threads may take to end after they were woken; a thread that hangs in a dead mount is then left behind. */
const LEAVE_MS = 10_000;

/**
 * Moves every part that is not known to be zero. Digests come back in the order of the parts.
 * The counter in `moving.done` grows by two for each byte, once as it is read and once as it is written.
 */
export async function moveRanges(
  job: Job,
  plan: Plan & { lane: 'ranges' },
  moving: Moving,
): Promise<{ parts: PartDigest[]; streams: number }> {
  const numbers = partsToMove(job.count, job.parts);
  const parts = Array.from({ length: job.count }, () => ZERO);
  const streams = Math.min(job.streams, numbers.length);
  if (streams === 0) return { parts, streams };

  await using ends = new AsyncDisposableStack();
  const pairs = await openPairs(plan, streams, ends, moving.signal);
  const todo = new Int32Array(new SharedArrayBuffer(4 * numbers.length));
  todo.set(numbers);
  const control = new Int32Array(new SharedArrayBuffer(8));
  const jobs = pairs.map(([read, write]): ThreadJob => ({
    name: job.source.name,
    reader: { module: read.module, data: read.data },
    writer: { module: write.module, data: write.data },
    size: job.source.size,
    partSize: job.partSize,
    expected: job.parts,
    todo,
    control,
    moved: moving.counter,
  }));
  const stop = (): void => {
    Atomics.store(control, STOP, 1);
    for (const end of pairs.flat()) end.wake?.();
  };
  const threads = jobs.map(startThread);
  try {
    const aborted = Promise.withResolvers<never>();
    const onAbort = (): void => aborted.reject(moving.signal.reason as Error);
    moving.signal.addEventListener('abort', onAbort, { once: true });
    if (moving.signal.aborted) onAbort();
    const done = await Promise.race([Promise.all(threads.map(t => t.parts)), aborted.promise]);
    moving.signal.removeEventListener('abort', onAbort);
    for (const [index, digest] of done.flat()) parts[index] = digest;
  } catch (error) {
    stop();
    await Promise.race([Promise.all(threads.map(t => t.ended)), after(LEAVE_MS)]);
    throw moving.signal.aborted || !(error instanceof CisternError) ? error : await explain(error, pairs.flat());
  }
  await Promise.all(threads.map(t => t.ended));
  return { parts, streams };
}

/** Opens all ends at once. Where one fails the others are given up; whatever did open is released by `ends`. */
async function openPairs(
  plan: Plan & { lane: 'ranges' },
  streams: number,
  ends: AsyncDisposableStack,
  signal: AbortSignal,
): Promise<[RangeEnd, RangeEnd][]> {
  const failed = new AbortController();
  const both = AbortSignal.any([signal, failed.signal]);
  const open = async (how: (signal: AbortSignal) => Promise<RangeEnd>): Promise<RangeEnd> => {
    try {
      const end = await how(both);
      ends.defer(() => end.release());
      return end;
    } catch (error) {
      failed.abort(error); // keeps the first reason
      throw error;
    }
  };
  const count = { length: streams };
  const opening = [...Array.from(count, () => open(plan.read)), ...Array.from(count, () => open(plan.write))];
  await Promise.allSettled(opening);
  both.throwIfAborted();
  const opened = await Promise.all(opening);
  return opened.slice(0, streams).map((read, i) => [read, opened[streams + i]!]);
}

function startThread(job: ThreadJob): { parts: Promise<[number, PartDigest][]>; ended: Promise<void> } {
  const worker = new Worker(new URL('./thread.ts', import.meta.url), {
    workerData: job,
    name: 'transfer',
    resourceLimits: { maxYoungGenerationSizeMb: 4 },
  });
  const parts = new Promise<[number, PartDigest][]>((resolve, reject) => {
    worker.once('message', (report: ThreadReport) =>
      'parts' in report ? resolve(report.parts) : reject(new CisternError(report.code, shown(report.detail))),
    );
    worker.once('error', cause =>
      reject(new CisternError('INTERNAL', `a transfer thread of ${job.name} failed: ${(cause as Error).message}`, { cause })),
    );
    worker.once('exit', code =>
      reject(new CisternError('INTERNAL', `a transfer thread of ${job.name} ended with ${code} before its work was done`)),
    );
  });
  const ended = new Promise<void>(resolve => worker.once('exit', () => resolve()));
  parts.catch(() => undefined); // the first failure is thrown by moveRanges; the others follow from it
  return { parts, ended };
}

async function explain(error: CisternError, ends: RangeEnd[]): Promise<CisternError> {
  for (const end of ends) {
    const better = await end.explain?.(error);
    if (better !== undefined && better !== error) return better;
  }
  return error;
}

const after = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms).unref());
