/**
 * A transfer thread: takes part numbers from a list that all threads of the transfer share, and for each part reads, verifies and
 * writes. It may block: it does nothing else. Blocking reads into one reused buffer measured faster than streams on the event loop.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { alignedBuffer } from './aligned.ts';
import { EndError } from './end-error.ts';
import type { Moved, RangeModule } from './ends.ts';
import { partRange, ZERO, type PartDigest } from './parts.ts';
import { draw } from './pace.ts';
import { COUNT, NEXT, STOP, WIDTH, type ThreadEnd, type ThreadJob, type ThreadReport } from './thread-job.ts';
import { verifyPart } from './verify.ts';

/** Bytes that are paced at once. */
const SLICE = 64 * 2 ** 10;

/** Parts that were claimed and are not known to have arrived. */
const claimed = new Set<number>();
const report = (news: ThreadReport): void => parentPort?.postMessage(news);

async function run(job: ThreadJob): Promise<void> {
  let counted = 0;
  let due = 0;
  const moved: Moved = bytes => {
    counted += bytes;
    Atomics.add(job.moved, 0, BigInt(bytes));
  };
  const stopped = (): boolean => Atomics.load(job.control, STOP) !== 0;
  const paced = ({ pace }: ThreadEnd): Moved =>
    pace
      ? bytes => {
          // in slices, so that a slow pace is not taken for a standstill
          for (let left = bytes; left > 0; left -= SLICE) {
            const some = Math.min(left, SLICE);
            draw(pace, some, stopped);
            moved(some);
          }
        }
      : moved;
  const reader = await open(job.reader, 'openReader', paced(job.reader));
  const writer = await open(job.writer, 'openWriter', paced(job.writer));
  const buffer = alignedBuffer(Math.min(job.partSize, job.size));

  const claim = (): number | undefined => {
    if (stopped() || job.lane >= Atomics.load(job.control, WIDTH)) return undefined;
    const index = Atomics.add(job.control, NEXT, 1);
    if (index >= Atomics.load(job.control, COUNT)) {
      Atomics.sub(job.control, NEXT, 1); // others may still be added behind
      return undefined;
    }
    const part = job.todo[index]!;
    claimed.add(part);
    reader.ask?.(...placeOf(job, part));
    return part;
  };
  const written: { part: number; digest: PartDigest }[] = [];
  let begun = 0;
  /** Tells of the parts of which the writer says that they have arrived. */
  const tell = (arrived: number): void => {
    while (begun - written.length < arrived) {
      const first = written.shift()!;
      claimed.delete(first.part);
      report(first);
    }
  };
  let part = claim();
  while (part !== undefined && !stopped()) {
    const next = claim();
    const [at, length] = placeOf(job, part);
    const { offset } = partRange(part, job.size, job.partSize);
    const data = buffer.subarray(0, length);
    await reader.read(at, data);
    const digest = verifyPart(job.name, part, offset, data, job.expected?.[part]);
    const kept = job.kept.get(part);
    if (kept !== undefined && kept !== digest)
      throw new EndError('TRANSFER_CHANGED', `part ${part} of ${job.name} is not what an earlier attempt had stored of it`);
    if (kept !== undefined || digest === ZERO) {
      moved(length); // as if it had been written
      claimed.delete(part);
      report({ part, digest });
    } else {
      written.push({ part, digest });
      begun++;
      await writer.write(offset, data, digest);
      tell(writer.arrived?.() ?? begun);
    }
    due += 2 * length;
    part = next;
  }
  await reader.close();
  await writer.close();
  tell(begun);
  moved(due - counted); // an end may have counted less than it moved
}

/** Where a part lies in the source. */
function placeOf(job: ThreadJob, part: number): [offset: number, length: number] {
  const { offset, length } = partRange(part, job.size, job.partSize);
  return [job.offsets?.[part] ?? offset, length];
}

async function open<K extends keyof RangeModule>(
  end: ThreadEnd,
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
  await run(workerData as ThreadJob);
  report({ done: true });
} catch (error) {
  const { code, message } = error instanceof EndError ? error : new EndError('INTERNAL', String(error), { cause: error });
  report({ code, detail: message, claimed: [...claimed] });
}
