/**
 * A transfer thread: takes part numbers from a list that all threads of the transfer share, and for each part reads, verifies and
 * writes. It may block: it does nothing else. Blocking reads into one reused buffer measured faster than streams on the event loop.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { alignedBuffer } from './aligned.ts';
import { EndError } from './end-error.ts';
import type { Moved, RangeModule } from './ends.ts';
import { partRange, ZERO, type PartDigest } from './parts.ts';
import { NEXT, STOP, type ThreadJob, type ThreadReport } from './thread-job.ts';
import { verifyPart } from './verify.ts';

async function run(job: ThreadJob): Promise<[number, PartDigest][]> {
  let counted = 0;
  let due = 0;
  const moved: Moved = bytes => {
    counted += bytes;
    Atomics.add(job.moved, 0, BigInt(bytes));
  };
  const reader = await open(job.reader, 'openReader', moved);
  const writer = await open(job.writer, 'openWriter', moved);
  const buffer = alignedBuffer(Math.min(job.partSize, job.size));
  const done: [number, PartDigest][] = [];

  const claim = (): number | undefined => {
    const part = Atomics.load(job.control, STOP) ? undefined : job.todo[Atomics.add(job.control, NEXT, 1)];
    if (part === undefined) return undefined;
    const { offset, length } = partRange(part, job.size, job.partSize);
    reader.ask?.(offset, length);
    return part;
  };
  let part = claim();
  while (part !== undefined && !Atomics.load(job.control, STOP)) {
    const next = claim();
    const { offset, length } = partRange(part, job.size, job.partSize);
    const data = buffer.subarray(0, length);
    await reader.read(offset, data);
    const digest = verifyPart(job.name, part, offset, data, job.expected?.[part]);
    if (digest === ZERO)
      moved(length); // as if it had been written
    else await writer.write(offset, data);
    done.push([part, digest]);
    due += 2 * length;
    part = next;
  }
  await reader.close();
  await writer.close();
  moved(due - counted); // an end may have counted less than it moved
  return done;
}

async function open<K extends keyof RangeModule>(
  end: { module: string; data: unknown },
  what: K,
  moved: Moved,
): Promise<Awaited<ReturnType<NonNullable<RangeModule[K]>>>> {
  const module = (await import(end.module)) as RangeModule;
  const opener = module[what];
  if (!opener) throw new EndError('INTERNAL', `the transfer module ${end.module} does not export ${what}`);
  return (await opener(end.data, moved)) as Awaited<ReturnType<NonNullable<RangeModule[K]>>>;
}

// Where it fails, files that it opened are closed as the thread ends (worker_threads: trackUnmanagedFds).
try {
  const parts = await run(workerData as ThreadJob);
  parentPort?.postMessage({ parts } satisfies ThreadReport);
} catch (error) {
  const { code, message } = error instanceof EndError ? error : new EndError('INTERNAL', String(error), { cause: error });
  parentPort?.postMessage({ code, detail: message } satisfies ThreadReport);
}
