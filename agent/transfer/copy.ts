/** The lane inside one site: the storage copies the object by itself, and the copy is read back, part by part. */
import type { Job, Moving } from './moving.ts';
import type { Plan } from './plan.ts';
import type { RangesMoved } from './ranges.ts';
import { readBack } from './read-back.ts';

/** Undefined where the site would not copy: the bytes are to go another way. Throws the signal's reason, or what the copy is wrong in. */
export async function moveByCopy(job: Job, { copy }: Plan & { lane: 'copy' }, moving: Moving): Promise<RangesMoved | undefined> {
  const { source, parts, streams } = job;
  const copied = await copy(moving.signal).catch(() => undefined); // why it would not: the other way meets it too, if it is more than that
  moving.signal.throwIfAborted();
  if (copied === undefined) return undefined;
  Atomics.add(moving.counter, 0, BigInt(source.size));
  const { offsets } = source;
  const there = { ...copied, size: source.size, ...(offsets && { offsets }) };
  return {
    parts: await readBack({ ...job, source: there }, moving),
    streams: Math.min(streams, parts!.length),
    resumed: 0,
    retries: 0,
  };
}
