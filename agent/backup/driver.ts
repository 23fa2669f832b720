import type { z } from 'zod';
import type { Capacity } from '../../shared/model.ts';
import type { Sink, Source } from '../transfer/ends.ts';

/**
 * A kind of backup storage. A new one is one file that exports this, one line in `registry.ts` and one test server; it then passes
 * the shared conformance suite.
 */
export interface BackupDriver<C = unknown> {
  type: string;
  title: string;
  /** Whether every host that opens it finds the same objects. */
  shared: boolean;
  /** Settings. Fields in `secret()` are never shown; every field has a `describe`. */
  config: z.ZodType<C>;
  /** Opens the storage: cheap where possible (sessions may be opened on first use). Throws STORE_* errors. */
  connect(store: { id: string; config: C }, signal: AbortSignal): Promise<BackupStore>;
}

/**
 * An open backup storage: named objects below one root. Object paths are relative, `/` separated, made by us, never from metadata.
 *
 * What every driver holds to:
 * - an object shows under its path whole or not at all; a writer that dies leaves nothing that `source` would find;
 * - `remove` of what is not there succeeds;
 * - errors are CisternErrors: STORE_AUTH, STORE_HOST_KEY, STORE_UNREACHABLE, STORE_PERMISSION, STORE_FULL, STORE_BUSY, OBJECT_MISSING;
 * - secrets reach neither argv nor errors.
 */
export interface BackupStore {
  /** An object to read. OBJECT_MISSING where it is not. */
  source(path: string): Promise<Source>;
  /**
   * A new object of `size` bytes to write, in parts of `partSize`; folders on the way are made. Where an earlier attempt was cut short and
   * the storage can tell what has arrived, it goes on from there (`Sink.kept`).
   */
  sink(path: string, size: number, partSize: number): Promise<Sink>;
  /** The largest size that an object may have, and in how many parts. Missing: whatever there is room for. */
  limits?: { parts: number; size: number };
  /** A small object (a manifest) whole; at most `limit` bytes, else MANIFEST_INVALID. */
  read(path: string, limit: number): Promise<Buffer>;
  /** A small object, written whole or not at all, over an older one if need be. */
  write(path: string, body: Buffer): Promise<void>;
  /** Names in a folder, as they come; none where there is no such folder. */
  list(folder: string): Promise<string[]>;
  /** Removes a folder and everything below it, its partial objects too. */
  remove(folder: string): Promise<void>;
  /** Proves that the storage can be read and written, by a probe object of its own that is gone afterwards. */
  check(): Promise<void>;
  /** Missing: the protocol does not tell; null: this server does not. */
  capacity?(): Promise<Capacity | null>;
  close(): Promise<void>;
}
