/** What a transfer thread is started with, and what it sends back. */
import type { ErrorCode } from '../../shared/errors.ts';
import type { Pace } from './pace.ts';
import type { PartDigest } from './parts.ts';

/** Indexes into `ThreadJob.control`. */
export const NEXT = 0;
export const STOP = 1;
export const COUNT = 2;
export const WIDTH = 3;

export interface ThreadEnd {
  module: string;
  data: unknown;
  pace: Pace | undefined;
}

export interface ThreadJob {
  name: string;
  /** Of the lanes side by side; one beyond the width ends after the part that it is at. */
  lane: number;
  reader: ThreadEnd;
  writer: ThreadEnd;
  size: number;
  partSize: number;
  expected: readonly PartDigest[] | undefined;
  /** Shared: where each part begins in the source, if not where it begins in the image. */
  offsets: Float64Array | undefined;
  /** Parts that lie in the sink already and need no writing. Where one is not what it should be, what lies there is of another image. */
  kept: ReadonlyMap<number, PartDigest>;
  /** Shared: numbers of the parts to move; more are added behind when a thread fails that had claimed them. */
  todo: Int32Array;
  /** Shared: [next index into `todo`, 1 = stop, how many there are in `todo`, how many lanes may run]. */
  control: Int32Array;
  /** Shared: bytes read plus bytes written so far by all threads. */
  moved: BigInt64Array;
}

/** Each part as it is done; then that all are, or why not, and which had been claimed. */
export type ThreadReport =
  { part: number; digest: PartDigest } | { done: true } | { code: ErrorCode; detail: string; claimed: number[] };
