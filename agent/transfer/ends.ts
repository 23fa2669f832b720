/**
 * The two ends of a transfer. A storage says how bytes can leave it (Source) and arrive (Sink); an optional ability is a function
 * that is there or not. `plan.ts` intersects both sides, so no pair of storages is ever written by hand.
 */
import type { Readable } from 'node:stream';
import type { CisternError } from '../../shared/errors.ts';
import type { Pace } from './pace.ts';
import type { PartDigest } from './parts.ts';

/** Called by an end as bytes cross it, so that progress and the stall watchdog see into a slow part. */
export type Moved = (bytes: number) => void;

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
  /** `data` belongs to the caller again when this returns; `digest` is its SHA-256 in hex, for servers that check what they are sent. */
  write(offset: number, data: Uint8Array, digest: string): void | Promise<void>;
  /** How many of the writes have arrived at the other side, for one that does not wait for that. Missing: all that have returned. */
  arrived?(): number;
  /** Returns when everything written has arrived at the other side (not: is on its disk). */
  close(): void | Promise<void>;
}

/**
 * What a transfer thread imports and opens: `module` (a file URL) exports `openReader(data, moved)` or `openWriter(data, moved)`;
 * `data` is cloned to it.
 */
export interface RangeEnd {
  module: string;
  data: unknown;
  /** Holds its bytes down to a rate that may change while they move. */
  pace?: Pace;
  /** Wakes a thread that is blocked in this end (ends the child process behind it); the thread then fails. */
  wake?(): void;
  /** Says better than the thread could why the thread failed with `error`. Called at most once, after the thread has ended. */
  explain?(error: CisternError): Promise<CisternError>;
  /** Frees what stands behind it. Called once its thread has ended; safe to call twice. */
  release(): Promise<void>;
}

/** What a RangeEnd's module exports for each direction. */
export interface RangeModule {
  openReader?(data: unknown, moved: Moved): RangeReader | Promise<RangeReader>;
  openWriter?(data: unknown, moved: Moved): RangeWriter | Promise<RangeWriter>;
}

/** A program of others that moves a whole object between the storage and a local file: simpler than ranges, and never resumed. */
export interface ToolLane {
  /** As reports name the lane: `scp`. */
  name: string;
  /**
   * Moves all of it between the object and `file`, a path that may lie beneath what is held (held.ts). `told` is called with the bytes
   * that have crossed so far. The program has ended when this returns or throws, and a failure leaves nothing that would be found.
   */
  run(file: string, options: { signal: AbortSignal; told: (bytes: number) => void }): Promise<void>;
}

/** Where an object lies, for a sink of the same site (`Sink.copy`). */
export interface Place {
  site: string;
  /** What the driver of such a site knows an object by. */
  object: unknown;
}

export interface Source {
  /** For messages and plans: `sftp store:images/…`. */
  name: string;
  size: number;
  /** Bytes of the object, where they are not those of the image (see `offsets`). */
  stored?: number;
  /** Where each part begins in the object, if parts of zeros are left out of it (`Sink.packs`). Missing: where it begins in the image. */
  offsets?: readonly number[];
  /** One end for each stream. */
  place?: Place;
  /** Where it lies, if it is a local file. */
  file?: string;
  tool?: ToolLane;
  ranges?: (signal: AbortSignal) => Promise<RangeEnd>;
  stream?: (signal: AbortSignal) => Promise<Readable>;
}

/**
 * Where an object arrives. Nothing is visible under its final name before `publish`, which makes the bytes durable first and
 * removes what has arrived when it fails; `abort` removes what has arrived; `park` keeps it for a later attempt at the same object.
 * Exactly one of the three is called, once; none when the process dies, which counts as `park`.
 */
export interface Sink {
  name: string;
  /** Parts of zeros are left out of the object, so the others move up: object storages know no holes. A tool leaves none out. */
  packs?: true;
  /** Parts that an earlier attempt has brought, by number, and what they are; they need not arrive again. */
  kept?: ReadonlyMap<number, PartDigest>;
  /** Notes that a part has arrived, so that the next attempt finds it in `kept`. Must not throw. */
  arrived?(part: number, digest: PartDigest): void;
  /** The site that can copy an object from another place in it, without its bytes crossing. */
  site?: string;
  /**
   * Has an object of the site (`Place.object`), `size` bytes as it is stored there, copied to where this one arrives, and returns the copy,
   * to be read back before `publish`. Throws where the site would not; what the sink is otherwise good for still works then.
   */
  copy?(object: unknown, size: number, signal: AbortSignal): Promise<Source>;
  /** Where it arrives before `publish`, if that is a local file. */
  file?: string;
  tool?: ToolLane;
  ranges?: (signal: AbortSignal) => Promise<RangeEnd>;
  stream?: (body: Readable, signal: AbortSignal) => Promise<void>;
  /** Brings what has arrived to the disk while more arrives; called from time to time. Ended before `publish`; `abort` may come meanwhile. */
  flush?(): Promise<void>;
  /** `parts` are the digests of all parts in order. */
  publish(parts: readonly PartDigest[]): Promise<void>;
  abort(): Promise<void>;
  /** Missing: nothing can be kept. */
  park?(): Promise<void>;
}
