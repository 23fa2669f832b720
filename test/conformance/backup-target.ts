/** What the backup suite wants to know of a storage, beside what its driver tells. */
export type Config = Record<string, unknown>;

/** What lies in a storage, seen past the driver. Paths are those that the driver is given. */
export interface View {
  /** Every object, in order; what is unfinished too, under whatever name. */
  files(): Promise<string[]>;
  readObject(path: string): Promise<Buffer>;
  writeObject(path: string, body: Buffer): Promise<void>;
  /** Bytes that an object takes. */
  stored(path: string): Promise<number>;
  /** Changes one byte of an object at rest. */
  damage(path: string, offset: number): Promise<void>;
  /** Cuts an object off. */
  shorten(path: string, size: number): Promise<void>;
}

export interface BackupTarget extends View, AsyncDisposable {
  /** What a user would configure. */
  config: Config;
  /** The same server with a place that is not there, and what an error calls it. */
  missing: { config: Config; words: RegExp };
  /** The same server with a place that may be read, not written. */
  locked: { config: Config; words: RegExp };
  /** The same kind with room for at most 4 parts, a storage of its own. */
  small(): Promise<{ config: Config; files: View['files'] } & AsyncDisposable>;
  /** The folder that holds the objects, for kinds that keep them in one. */
  root?: string;
}
