/**
 * The two ends of a transfer. A storage says how bytes can leave it (Source) and arrive (Sink); an optional ability is a function
 * that is there or not. `plan.ts` intersects both sides, so no pair of storages is ever written by hand.
 */
import type { Readable } from 'node:stream';

/** Reads ranges of one object inside a transfer thread; its calls may block that thread. */
export interface RangeReader {
  /** Announces the next read, so that its request is on the way while the caller hashes. At most one is announced ahead. */
  ask?(offset: number, length: number): void;
  /** Fills `into` whole from `offset`, or throws. */
  read(offset: number, into: Uint8Array): void | Promise<void>;
  close(): void | Promise<void>;
}

/** Writes ranges of one object inside a transfer thread. Ranges never written stay zero. */
export interface RangeWriter {
  write(offset: number, data: Uint8Array): void | Promise<void>;
  /** Returns when everything written has arrived at the other side (not: is on its disk). */
  close(): void | Promise<void>;
}

/** What a transfer thread imports and opens: `module` exports `openReader(data)` or `openWriter(data)`; `data` is cloned to it. */
export interface RangeEnd {
  module: string;
  data: unknown;
  /** Ends what stands behind it (a child process); also the way to wake a thread that is blocked. Safe to call twice. */
  release(): Promise<void>;
}

export interface Source {
  /** For messages and plans: `sftp store:images/…`. */
  name: string;
  size: number;
  /** One end for each stream. */
  ranges?: (signal: AbortSignal) => Promise<RangeEnd>;
  stream?: (signal: AbortSignal) => Promise<Readable>;
}

/**
 * Where an object arrives. Nothing is visible under its final name before `publish`, which makes the bytes durable first;
 * `abort` removes what has arrived. Exactly one of the two is called, once.
 */
export interface Sink {
  name: string;
  ranges?: (signal: AbortSignal) => Promise<RangeEnd>;
  stream?: (body: Readable, signal: AbortSignal) => Promise<void>;
  publish(): Promise<void>;
  abort(): Promise<void>;
}
