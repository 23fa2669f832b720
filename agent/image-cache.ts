import type { CommandInput, CommandOutput } from '../shared/commands/index.ts';
import type { StoreRef } from '../shared/commands/refs.ts';
import { CisternError, type ErrorCode, ERRORS, type ReplicaFault, toProblem } from '../shared/errors.ts';
import { fetchImage } from './backup/layout.ts';
import type { Manifest } from './backup/manifest.ts';
import type { TaskContext } from './commands/handler.ts';
import { abortReason, throwIfAborted } from './host/run.ts';
import type { Pool } from './primary/driver.ts';

type Image = CommandInput<'cache.fill'>['image'];
type Filled = CommandOutput<'cache.fill'>;
type Progress = TaskContext['progress'];

interface Flight {
  done: Promise<Filled>;
  /** Everybody who waits sees the progress of the one download. */
  watchers: Set<Progress>;
}

/** Downloads under way in this process, by the name of the cached image. */
const flights = new Map<string, Flight>();

/**
 * Brings an image into the pool's cache, once however many ask: one downloads, the others wait and find it there. Where the one is
 * cancelled, the next of those that wait takes over; where it fails, all of them do. Nothing shows in the cache before each part was
 * verified; what is unfinished lies in the task's scratch folder only.
 */
export async function fillCache(pool: Pool, image: Image, stores: StoreRef[], ctx: TaskContext): Promise<Filled> {
  const path = pool.cacheName(image.id, image.format);
  for (;;) {
    throwIfAborted(ctx.signal);
    const there = await soundEntry(pool, image, ctx.signal);
    if (there !== undefined)
      return {
        size: there.size,
        allocated: there.allocated,
        virtualSize: there.virtualSize,
        alreadyThere: true,
        storeId: null,
        faults: [],
      };
    const other = flights.get(path);
    if (other === undefined) return lead(path, pool, image, stores, ctx);
    const ended = await join(other, ctx);
    if (ended !== undefined && !isCancel(ended)) throw ended;
  }
}

/** The image as the cache has it; undefined where it has it not, or damaged: then it is fetched into the place of that. */
async function soundEntry(pool: Pool, image: Image, signal: AbortSignal): Promise<Awaited<ReturnType<Pool['cached']>>> {
  try {
    const there = await pool.cached(image.id, image.format);
    if (there?.digest !== image.digest) return undefined;
    await pool.verifyImage(image.id, image.format, { signal });
    return there;
  } catch (error) {
    if (error instanceof CisternError && error.code === 'CACHE_DAMAGED') return undefined;
    throw error;
  }
}

async function lead(path: string, pool: Pool, image: Image, stores: StoreRef[], ctx: TaskContext): Promise<Filled> {
  const watchers = new Set<Progress>([ctx.progress]);
  const tell: Progress = (...news) => watchers.forEach(watcher => watcher(...news));
  const done = download(pool, image, stores, { ...ctx, progress: tell });
  flights.set(path, { done, watchers });
  try {
    return await done;
  } finally {
    flights.delete(path);
  }
}

/** Waits for another task's download; returns its error, or undefined when it went well. */
async function join({ done, watchers }: Flight, { signal, progress }: TaskContext): Promise<unknown> {
  const aborted = Promise.withResolvers<never>();
  const onAbort = (): void => aborted.reject(abortReason(signal));
  signal.addEventListener('abort', onAbort, { once: true });
  watchers.add(progress);
  const outcome = done.then(
    () => undefined,
    (error: unknown) => error,
  );
  try {
    return await Promise.race([outcome, aborted.promise]);
  } finally {
    watchers.delete(progress);
    signal.removeEventListener('abort', onAbort);
  }
}

/** Tries the replicas in their order. What is wrong with the pool or the task ends it; what is wrong with a replica leads to the next. */
async function download(pool: Pool, image: Image, stores: StoreRef[], ctx: TaskContext): Promise<Filled> {
  const faults: ReplicaFault[] = [];
  let first: unknown;
  for (const ref of stores) {
    try {
      return { ...(await fromReplica(pool, image, ref, ctx)), storeId: ref.id, faults };
    } catch (error) {
      throwIfAborted(ctx.signal);
      if (error instanceof CisternError && (error.code.startsWith('POOL_') || isCancel(error))) throw error;
      first ??= error;
      const { code, detail } = toProblem(error);
      faults.push({ storeId: ref.id, code, detail });
    }
  }
  throw allFailed(image, faults, first);
}

async function fromReplica(
  pool: Pool,
  image: Image,
  ref: StoreRef,
  ctx: TaskContext,
): Promise<Omit<Filled, 'storeId' | 'faults'>> {
  const store = await ctx.store(ref);
  const { manifest, summary } = await fetchImage(
    store,
    image.id,
    async found => {
      refuseOther(image, found, ref.id);
      const { format, size, virtualSize, digest, partSize, parts } = found;
      return pool.cacheSink({ id: image.id, format, size, virtualSize, digest, partSize, parts });
    },
    {
      streams: ctx.config.streams,
      stallSeconds: ctx.config.stallSeconds,
      signal: ctx.signal,
      progress: (done, total) => ctx.progress('download', done, total, 'bytes'),
    },
  );
  const stored = await pool.cached(image.id, image.format);
  return {
    size: manifest.size,
    allocated: stored?.allocated ?? manifest.size,
    virtualSize: manifest.virtualSize,
    alreadyThere: false,
    transfer: summary,
  };
}

/**
 * Refuses a manifest that is sound in itself, but not that of the image that was published: whoever can write to a storage can change
 * object and manifest together.
 */
export function refuseOther(image: Image, { format, digest }: Manifest, storeId: string): void {
  if (format !== image.format)
    throw new CisternError(
      'MANIFEST_INVALID',
      `image ${image.id} should be ${image.format}, but its manifest on ${storeId} says ${format}`,
    );
  if (digest !== image.digest)
    throw new CisternError(
      'DIGEST_MISMATCH',
      `image ${image.id} was published with the digest ${image.digest}, but its manifest on ${storeId} says ${digest}`,
    );
}

/** One error that tells every replica's; retryable where one of them is. */
export function allFailed(image: { id: string }, faults: ReplicaFault[], first: unknown): unknown {
  const codes = faults.map(fault => fault.code as ErrorCode);
  const code = codes.find(one => ERRORS[one].retryable) ?? codes[0] ?? 'OBJECT_MISSING';
  const told = faults.map(({ storeId, code: its, detail }) => `from ${storeId}: ${its}: ${detail}`);
  const detail =
    faults.length === 1
      ? faults[0]!.detail
      : `image ${image.id} could not be had from any of its ${faults.length} replicas; ${told.join('; ')}`;
  return new CisternError(code, detail, { cause: first, replicas: faults });
}

export const isCancel = (error: unknown): boolean =>
  (error instanceof CisternError && error.code === 'CANCELLED') || (error instanceof Error && error.name === 'AbortError');
