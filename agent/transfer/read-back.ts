import type { Job, Moving } from './moving.ts';
import { nowhere } from './nowhere.ts';
import { moveRanges } from './ranges.ts';

const TICK_MS = 200;

/**
 * Reads what lies at the source of `job` and returns its parts; counts each byte once. DIGEST_MISMATCH where they are not those that
 * the job tells; parts of zeros are then not read.
 */
export async function readBack(job: Job, { signal, counter }: Moving): Promise<string[]> {
  const read = new BigInt64Array(new SharedArrayBuffer(8));
  let counted = 0n;
  const count = (): void => {
    const now = Atomics.load(read, 0) / 2n;
    Atomics.add(counter, 0, now - counted);
    counted = now;
  };
  const timer = setInterval(count, TICK_MS);
  try {
    const sink = nowhere();
    const way = { lane: 'ranges' as const, read: job.source.ranges!, write: sink.ranges! };
    const { parts } = await moveRanges({ ...job, sink }, way, { signal, counter: read });
    count();
    return parts;
  } finally {
    clearInterval(timer);
  }
}
