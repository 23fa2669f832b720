import type { Sink, Source } from './ends.ts';
import type { PartDigest } from './parts.ts';

/** What both lanes work from. */
export interface Job {
  source: Source;
  sink: Sink;
  count: number;
  partSize: number;
  parts: readonly PartDigest[] | undefined;
  streams: number;
}

/** What both lanes report to and stop by. */
export interface Moving {
  signal: AbortSignal;
  /** Shared with threads; grows by two for each byte: once read, once written. */
  counter: BigInt64Array;
}
