/** The lane of one stream: for storages that cannot read or write ranges. Hashing happens on the event loop, part by part. */
import { Transform, type Readable, type TransformCallback } from 'node:stream';
import { EndError } from './end-error.ts';
import type { Job, Moving } from './moving.ts';
import { partRange, type PartDigest } from './parts.ts';
import type { Plan } from './plan.ts';
import type { RangesMoved } from './ranges.ts';
import { verifyPart } from './verify.ts';

/** Moves the object in one piece. Parts that are known to be zero cross too: a stream has no holes. */
export async function moveStream(job: Job, plan: Plan & { lane: 'stream' }, moving: Moving): Promise<RangesMoved> {
  const parts: PartDigest[] = [];
  const body = await plan.read(moving.signal);
  const checked = body.pipe(checker(job, parts, moving.counter));
  const fail = (error: Error): void => void checked.destroy(error);
  const onAbort = (): void => fail(moving.signal.reason as Error);
  body.once('error', fail);
  moving.signal.addEventListener('abort', onAbort, { once: true });
  try {
    if (moving.signal.aborted) onAbort();
    await plan.write(checked, moving.signal);
  } catch (error) {
    throw moving.signal.aborted ? moving.signal.reason : (checked.errored ?? error);
  } finally {
    moving.signal.removeEventListener('abort', onAbort);
    closeBoth(body, checked);
  }
  return { parts, streams: 1, resumed: 0, retries: 0 };
}

/** Passes bytes on, having hashed them; what does not match never reaches `publish`, because the stream fails. */
function checker(job: Job, parts: PartDigest[], counter: BigInt64Array): Transform {
  const { size, name } = job.source;
  const buffer = Buffer.allocUnsafeSlow(Math.min(job.partSize, Math.max(size, 1)));
  let filled = 0;
  const finishPart = (): void => {
    const { offset, length } = partRange(parts.length, size, job.partSize);
    parts.push(verifyPart(name, parts.length, offset, buffer.subarray(0, length), job.parts?.[parts.length]));
    filled = 0;
  };
  const take = (chunk: Buffer): void => {
    for (let at = 0; at < chunk.length;) {
      if (parts.length === job.count)
        throw new EndError('DIGEST_MISMATCH', `reading ${name}: it is longer than the ${size} bytes it should have`);
      const { length } = partRange(parts.length, size, job.partSize);
      const n = chunk.copy(buffer, filled, at, at + length - filled);
      filled += n;
      at += n;
      if (filled === length) finishPart();
    }
    Atomics.add(counter, 0, BigInt(2 * chunk.length));
  };
  const attempt = (work: () => void, done: TransformCallback, chunk?: Buffer): void => {
    try {
      work();
    } catch (error) {
      return done(error as Error);
    }
    done(null, chunk);
  };
  return new Transform({
    transform: (chunk: Buffer, _encoding, done) => attempt(() => take(chunk), done, chunk),
    flush: done =>
      attempt(() => {
        const got = parts.length * job.partSize + filled;
        if (parts.length < job.count)
          throw new EndError('DIGEST_MISMATCH', `reading ${name}: it ended after ${got} of ${size} bytes`);
      }, done),
  });
}

const closeBoth = (...streams: Readable[]): void => streams.forEach(stream => void stream.destroy());
