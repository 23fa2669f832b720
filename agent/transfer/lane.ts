/** One lane of a transfer: a thread with its own reader and writer, begun anew after failures that may pass. */
import { setTimeout as delay } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { CisternError } from '../../shared/errors.ts';
import { shown } from '../host/held.ts';
import type { RangeEnd } from './ends.ts';
import type { PartDigest } from './parts.ts';
import type { Plan } from './plan.ts';
import type { Queue } from './queue.ts';
import { ATTEMPTS, isPassing, pause } from './retry.ts';
import type { ThreadJob, ThreadReport } from './thread-job.ts';

/** How long a thread may take to end after it was woken; one that hangs in a dead mount is then left behind. */
const LEAVE_MS = 10_000;
/** How often a lane that was narrowed away looks whether it may run again. */
const LOOK_MS = 500;

export interface LaneOptions {
  /** Number among the lanes. */
  lane: number;
  plan: Plan & { lane: 'ranges' };
  queue: Queue;
  job: Omit<ThreadJob, 'reader' | 'writer' | 'lane'>;
  /** Aborted on cancel, and when another lane has failed. */
  signal: AbortSignal;
  done(part: number, digest: PartDigest): void;
  failed(error: CisternError): void;
}

/** Returns when no part waits any more. Throws the signal's reason, or what cannot be tried again. */
export async function runLane(options: LaneOptions): Promise<void> {
  const { lane, queue, signal } = options;
  let failures = 0;
  while (queue.waiting()) {
    signal.throwIfAborted();
    if (lane >= queue.width()) {
      await delay(LOOK_MS, undefined, { signal, ref: false });
      continue;
    }
    try {
      await runOnce(options, () => (failures = 0));
    } catch (error) {
      signal.throwIfAborted();
      if (!isPassing(error) || ++failures >= ATTEMPTS) throw error;
      if (error.code === 'STORE_BUSY') queue.narrow();
      options.failed(error);
      await pause(failures, signal);
    }
  }
}

async function runOnce(options: LaneOptions, progressed: () => void): Promise<void> {
  const { queue, signal } = options;
  await using ends = new AsyncDisposableStack();
  const pair = await openPair(options, ends);
  const [read, write] = pair.map(({ module, data, pace }) => ({ module, data, pace })) as [
    ThreadJob['reader'],
    ThreadJob['writer'],
  ];
  const thread = startThread({ ...options.job, lane: options.lane, reader: read, writer: write }, (part, digest) => {
    progressed();
    options.done(part, digest);
  });
  const aborted = Promise.withResolvers<never>();
  const onAbort = (): void => aborted.reject(signal.reason as Error);
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    if (signal.aborted) onAbort();
    const failure = await Promise.race([thread.outcome, aborted.promise]);
    if (!failure) return;
    queue.again(failure.claimed);
    throw await explain(failure.error, pair);
  } catch (error) {
    if (signal.aborted) {
      queue.stop();
      for (const end of pair) end.wake?.(); // its thread may stand still in one of them
    }
    throw error;
  } finally {
    signal.removeEventListener('abort', onAbort);
    await Promise.race([thread.ended, delay(LEAVE_MS, undefined, { ref: false })]);
  }
}

/** Opens both ends. Where one fails the other is given up; what did open is released by `ends`. */
async function openPair({ plan, signal }: LaneOptions, ends: AsyncDisposableStack): Promise<[RangeEnd, RangeEnd]> {
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
  const opening = [open(plan.read), open(plan.write)] as const;
  await Promise.allSettled(opening);
  both.throwIfAborted();
  return await Promise.all(opening);
}

interface Failure {
  error: CisternError;
  claimed: number[];
}

function startThread(
  job: ThreadJob,
  done: (part: number, digest: PartDigest) => void,
): { outcome: Promise<Failure | undefined>; ended: Promise<void> } {
  const worker = new Worker(new URL('./thread.ts', import.meta.url), {
    workerData: job,
    name: 'transfer',
    resourceLimits: { maxYoungGenerationSizeMb: 4 },
  });
  const outcome = new Promise<Failure | undefined>((resolve, reject) => {
    worker.on('message', (news: ThreadReport) => {
      if ('part' in news) done(news.part, news.digest);
      else if ('done' in news) resolve(undefined);
      else resolve({ error: new CisternError(news.code, shown(news.detail)), claimed: news.claimed });
    });
    worker.once('error', cause =>
      reject(new CisternError('INTERNAL', `a transfer thread of ${job.name} failed: ${(cause as Error).message}`, { cause })),
    );
    worker.once('exit', code =>
      reject(new CisternError('INTERNAL', `a transfer thread of ${job.name} ended with ${code} before its work was done`)),
    );
  });
  const ended = new Promise<void>(resolve => worker.once('exit', () => resolve()));
  outcome.catch(() => undefined); // nobody waits for it any more once the transfer was cancelled
  return { outcome, ended };
}

async function explain(error: CisternError, ends: readonly RangeEnd[]): Promise<CisternError> {
  for (const end of ends) {
    const better = await end.explain?.(error);
    if (better !== undefined && better !== error) return better;
  }
  return error;
}
