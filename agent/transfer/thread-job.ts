/** What a transfer thread is started with, and what it sends back. */
import type { ErrorCode } from '../../shared/errors.ts';
import type { PartDigest } from './parts.ts';

/** Indexes into `ThreadJob.control`. */
export const NEXT = 0;
export const STOP = 1;

export interface ThreadJob {
  name: string;
  reader: { module: string; data: unknown };
  writer: { module: string; data: unknown };
  size: number;
  partSize: number;
  expected: readonly PartDigest[] | undefined;
  /** Shared: numbers of the parts to move. */
  todo: Int32Array;
  /** Shared: [next index into `todo`, 1 = stop]. */
  control: Int32Array;
  /** Shared: bytes read plus bytes written so far by all threads. */
  moved: BigInt64Array;
}

export type ThreadReport = { parts: [number, PartDigest][] } | { code: ErrorCode; detail: string };
