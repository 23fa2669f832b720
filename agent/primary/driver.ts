import type { z } from 'zod';
import type { CommandOutput } from '../../shared/commands/index.ts';
import type { TransferSummary } from '../../shared/commands/refs.ts';
import type { Capacity, ImageFormat } from '../../shared/model.ts';
import type { Sink } from '../transfer/ends.ts';
import type { PartDigest } from '../transfer/parts.ts';

/** A kind of primary storage: one file that exports this and one line in `registry.ts`. */
export interface PrimaryDriver<C = unknown> {
  type: string;
  title: string;
  /** Whether all hosts that connect see one and the same pool. */
  shared: boolean;
  /** Settings. Fields in `secret()` are never shown; every field has a `describe`. */
  config: z.ZodType<C>;
  /** What a volume is to whoever runs VMs: its format, and its path in the pool, with `{volume}` and `{layer}` for its ids. */
  volumes: { format: ImageFormat; path: string };
  /**
   * Makes the pool usable on this host (mounts it where need be) and checks its identity: a place that shows another pool, or none,
   * is POOL_IDENTITY. With `initialize`, a place without pool.json that is empty becomes this pool. Repeating it is safe and cheap.
   */
  connect(pool: { id: string; config: C }, options: ConnectOptions): Promise<Pool>;
  /** Takes away what `connect` put up on this host, also where the storage does not answer. Missing: there is nothing to take away. */
  disconnect?(pool: { id: string; config: C }, options: Omit<ConnectOptions, 'initialize'>): Promise<void>;
}

export interface ConnectOptions {
  initialize: boolean;
  signal: AbortSignal;
  /** The agent's folder below which pools are mounted, each at its id. */
  mountDir: string;
}

export interface VolumeSpec {
  id: string;
  layerId: string;
  /** Noted beside it, for a controller that lost its database. */
  name?: string | undefined;
  kind?: 'root' | 'data' | undefined;
}

/** A file or device that qemu-img may open, always with its format said, and what it stands on where it is a layer of a volume. */
export interface DiskFile {
  path: string;
  /** Leads to exactly this file, whatever `path` leads to meanwhile (held.ts). */
  held?: string;
  /** `path` is the socket of an NBD server. */
  nbd?: true;
  format: ImageFormat;
  backing?: DiskFile | null;
}

/** A disk held open until disposed of. */
export type OpenDisk = DiskFile & AsyncDisposable;

/** An image that is to be cached, as its manifest describes it. */
export interface CachedImage {
  id: string;
  format: ImageFormat;
  size: number;
  virtualSize: number;
  digest: string;
  partSize: number;
  parts: PartDigest[];
}

/** How a cached image is verified. */
export interface Verification {
  signal: AbortSignal;
  /** Reads all of it, whatever is known of it. */
  full?: boolean;
  /** Holds the reading down; missing or null: as fast as it goes. */
  bytesPerSecond?: number | null;
  progress?: (done: number, total: number) => void;
}

export interface CopyOptions {
  signal: AbortSignal;
  streams: number;
  stallSeconds: number;
  progress: (stage: string, done: number, total: number | null, unit?: 'bytes' | 'percent') => void;
}

/** Bytes that a guest sees of a copy, and that it takes; how they went, null where qemu-img moved them. */
export interface Copied {
  size: number;
  allocated: number;
  transfer: TransferSummary | null;
}

/** The cached image that volumes are to stand on; `digest` as it was published. */
export interface Backing {
  imageId: string;
  format: ImageFormat;
  digest: string;
}

/**
 * An open pool. What every driver holds to:
 * - a cache entry, a volume or a trash entry is there whole or not at all; unfinished work lives in `tmp/<taskId>/` and `tmp/fill-<imageId>/` only;
 * - nothing outside the pool's root is read, written or removed, whatever links somebody planted in it;
 * - repeating a call that was done already succeeds and changes nothing.
 */
export interface Pool {
  initialized: boolean;
  capacity(): Promise<Capacity>;
  usage(signal: AbortSignal): Promise<CommandOutput<'pool.usage'>>;
  /** Everything that lies in it, also what nobody knows of; with `check` also what is wrong inside of volumes that nobody has open. */
  scan(options: { check: boolean }, signal: AbortSignal): Promise<CommandOutput<'pool.scan'>>;
  /** The cached image, or undefined. CACHE_DAMAGED where only a part of it is there. */
  cached(
    imageId: string,
    format: ImageFormat,
  ): Promise<{ size: number; allocated: number; virtualSize: number; digest: string } | undefined>;
  /** Sees to it that a cached image holds what its manifest says: see `verifyImage` in `file-pool/verify.ts`. Returns the parts and bytes that it read. */
  verifyImage(imageId: string, format: ImageFormat, verification: Verification): Promise<{ parts: number; read: number }>;
  /**
   * Where a cached image arrives: published read-only, in the place of a damaged one, and only after `inspectCopy` has judged it (IMAGE_*),
   * since others may write to a backup storage. What its manifest says is kept beside it. What is cut short is kept for a day, and gone on with.
   */
  cacheSink(image: CachedImage): Promise<Sink>;
  /** What tells a cached image from all others, of other pools too. */
  cacheName(imageId: string, format: ImageFormat): string;
  evict(imageId: string): Promise<{ freed: number }>;
  /** All of the volumes or none: empty ones, or linked clones of a cached image; CACHE_DAMAGED where that is not what it should be. */
  createVolumes(
    taskId: string,
    volumes: VolumeSpec[],
    size: number,
    backing: Backing | null,
    signal: AbortSignal,
    progress: (done: number) => void,
  ): Promise<{ allocated: number }>;
  /**
   * The volume's top layer for qemu-img, with what it stands on by the pool's own notes: its header may have been changed by whoever
   * runs on it. VOLUME_MISSING where it is not, IMAGE_DATA_FILE where its header names a file for its data.
   */
  volumeFile(volumeId: string, layerId: string): Promise<OpenDisk>;
  /** Another one once somebody has written to the volume. VOLUME_MISSING. */
  version(volumeId: string, layerId: string): Promise<string>;
  /**
   * A volume with the bytes of another disk, read back before it shows; it stands on a cached image where that is told, and alone else. Whatever
   * an earlier attempt left in its place goes.
   */
  copyVolume(volume: VolumeSpec, source: OpenDisk, backing: Backing | null, options: CopyOptions): Promise<Copied>;
  /** CACHE_DAMAGED where the image that a volume stands on is. */
  verifyBase(volumeId: string, signal: AbortSignal): Promise<void>;
  /** Grows a volume. VOLUME_IN_USE while a program has it open; less than it has is BAD_REQUEST, the same again is no error. */
  resizeVolume(
    volumeId: string,
    layerId: string,
    size: number,
    signal: AbortSignal,
  ): Promise<{ size: number; allocated: number }>;
  /** Returns those that are in the trash now. VOLUME_IN_USE, and none moved, where a program writes to one of them. */
  trash(volumeIds: string[], signal: AbortSignal): Promise<string[]>;
  /** Brings volumes back from the trash; returns those that it brought. One that stands in its place already is left alone. */
  restore(volumeIds: string[]): Promise<string[]>;
  /** Removes these from the trash at once, and what copies of them left that were cut short. */
  discard(volumeIds: string[]): Promise<void>;
  purge(volumeIds: string[], before: Date | null, signal: AbortSignal): Promise<{ removed: string[]; freed: number }>;
  /** Removes what dead tasks of this host left. */
  sweep(taskIds: string[]): Promise<void>;
  /** Removes what any task left, where this host alone works on the pool. Only before this process has begun its first task on it. */
  sweepAll?(): Promise<void>;
  /** Stops being a pool: cached images, trash and identity go. IN_USE where volumes are left. */
  forget(): Promise<void>;
}
