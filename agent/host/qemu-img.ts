import { open, rm, stat } from 'node:fs/promises';
import { z } from 'zod';
import { CisternError, wrapError } from '../../shared/errors.ts';
import type { ImageFormat } from '../../shared/model.ts';
import { CAGE_PROCESSES } from './cage.ts';
import { claimFile } from './held.ts';
import { isNoRoom } from './no-room.ts';
import { run } from './run.ts';
import {
  diskName,
  filesOf,
  plainPath,
  qemuImg,
  supportsExtendedL2,
  supportsZstd,
  version,
  type QemuDisk,
} from './qemu-img-run.ts';

export { supportsExtendedL2, version, type QemuDisk } from './qemu-img-run.ts';

export interface ConvertOptions {
  source: QemuDisk;
  /** Absolute path of a file that is not there yet. */
  target: string;
  targetFormat: ImageFormat;
  /** The target is a volume's layer: see `volumeOptions`. */
  volume?: boolean;
  /** Compresses the clusters of a qcow2 target: zstd where qemu can, else zlib. */
  compress?: boolean;
  /** Requests in flight, 1 to 16. Without it qemu's own 8, or 16 where it compresses (each takes a thread then). */
  coroutines?: number;
  /** What the source expands to, in bytes, where known: deadline and CPU limit grow with it. */
  virtualSize?: number;
  /** Bytes that the target may have. */
  maxFileSize?: number;
  /** Others made the source: it is read by another user than root. */
  untrusted?: boolean;
  signal?: AbortSignal | undefined;
  /** `done` of 100 percent. */
  progress?: (done: number, total: 100) => void;
}

/**
 * Copies a disk, whatever it stands on included, into a fresh file that is on disk when this returns. It is read in a cage: a disk may
 * be hostile that was ours. On failure or cancel the target is gone. Throws VOLUME_IN_USE, POOL_FULL, TOOL_FAILED, TIMEOUT, CANCELLED;
 * IO_ERROR where the target is there already.
 */
export async function convert(options: ConvertOptions): Promise<void> {
  const { source, target, targetFormat, compress = false, progress, signal } = options;
  const args = ['convert', '-p', '-O', targetFormat];
  const coroutines = options.coroutines ?? (compress ? 16 : undefined);
  if (coroutines !== undefined) args.push('-m', String(coroutines));
  // Out-of-order writes are a third faster when compressing; without, they only scatter the target.
  if (compress) args.push('-c', '-W', ...(supportsZstd(await version(signal)) ? ['-o', 'compression_type=zstd'] : []));
  if (options.volume) args.push(...(await volumeOptions({ signal })));
  const bytes = Math.max((await stat(source.held ?? source.path).catch(rethrow(source.path))).size, options.virtualSize ?? 0);
  // 4 MiB of disk a second is slower than any host that is of use; a disk made to waste time gets no more than that.
  const seconds = 300 + Math.ceil(bytes / (4 * 2 ** 20));
  await creating(target, async () => {
    await qemuImg([...args, '--', diskName(source), plainPath(target)], `${target} (from ${source.path})`, {
      cage: { reads: filesOf(source), writes: [target], own: options.untrusted !== true },
      signal,
      timeoutSeconds: seconds,
      limits: { cpuSeconds: seconds, fileSize: options.maxFileSize, processes: options.untrusted ? CAGE_PROCESSES : undefined },
      ...(progress === undefined ? {} : { onStdout: percentages(done => progress(done, 100)) }),
    });
    await fsync(target);
  });
}

/** Copies a disk into one that is there, empty and as large, behind the socket of an NBD server. Throws as `convert` does. */
export async function convertInto(
  source: QemuDisk,
  target: QemuDisk & { nbd: true },
  options: Pick<ConvertOptions, 'signal' | 'progress'> & { virtualSize: number },
): Promise<void> {
  const { signal, progress, virtualSize } = options;
  const args = ['convert', '-p', '-n', '--target-is-zero', '-W', '-O', target.format, '--', diskName(source), diskName(target)];
  await qemuImg(args, `${target.path} (from ${source.path})`, {
    cage: { reads: [...filesOf(source), ...filesOf(target)], own: true },
    signal,
    timeoutSeconds: 300 + Math.ceil(virtualSize / (4 * 2 ** 20)),
    ...(progress && { onStdout: percentages(done => progress(done, 100)) }),
  });
}

/** An empty qcow2 volume of `size` bytes. */
export async function createEmpty(options: {
  path: string;
  size: number;
  extendedL2?: boolean;
  signal?: AbortSignal | undefined;
}): Promise<void> {
  const extra = await volumeOptions(options);
  await create(options.path, path => [...extra, '--', path, String(options.size)], options.signal);
}

export interface OverlayOptions {
  path: string;
  /** `name` is relative to the folder of `path`, so that the pool can be mounted anywhere. */
  backing: { name: string; format: ImageFormat };
  /** Bytes; the backing file's own size unless given. */
  size?: number;
  /** Whether to use sub-clusters; where the installed qemu has them unless said. */
  extendedL2?: boolean;
  signal?: AbortSignal | undefined;
}

/** A linked clone: a qcow2 that holds only what differs from its backing file. */
export async function createOverlay(options: OverlayOptions): Promise<void> {
  const { path, backing, size, signal } = options;
  // qemu reads "x:y" as protocol x and "json:" as a document; names that we make have no need of either.
  if (!/^[A-Za-z0-9._][A-Za-z0-9._/-]{0,1022}$/.test(backing.name))
    throw new CisternError('IO_ERROR', `making the overlay ${path}: "${backing.name}" is no relative name of a backing file`);
  const args = ['-F', backing.format, '-b', backing.name, ...(await volumeOptions(options))];
  // with its size told, qemu-img need not look for the backing file (-u), which a path of something held would not lead to
  if (size === undefined) await create(path, () => [...args, '--', plainPath(path)], signal);
  else await create(path, held => [...args, '-u', '--', held, String(size)], signal);
}

/** Sub-clusters of 4 KiB in clusters of 128 KiB: first writes take 2.3 times the rate and a sixteenth of the space of the default. */
async function volumeOptions(options: { extendedL2?: boolean; signal?: AbortSignal | undefined }): Promise<string[]> {
  const extended = options.extendedL2 ?? supportsExtendedL2(await version(options.signal));
  return extended ? ['-o', 'extended_l2=on,cluster_size=128k'] : [];
}

const create = (path: string, args: (held: string) => string[], signal: AbortSignal | undefined): Promise<void> =>
  creating(path, async held => void (await qemuImg(['create', '-q', '-f', 'qcow2', ...args(held)], path, { signal })));

/** Grows a disk to `size` bytes; smaller than it is: TOOL_FAILED. VOLUME_IN_USE while a program has it open. */
export async function resize(disk: QemuDisk, size: number, signal?: AbortSignal): Promise<void> {
  const [writes, ...reads] = filesOf(disk) as [string, ...string[]];
  const cage = { reads, writes: [writes], own: true };
  const path = disk.held ?? disk.path;
  try {
    await qemuImg(['resize', '-q', '--', diskName(disk), String(size)], disk.path, { cage, signal });
    await fsync(path);
  } catch (error) {
    if (error instanceof CisternError && error.code === 'IO_ERROR') await forgetPages(path, error);
    throw error;
  }
}

const Info = z.object({
  'virtual-size': z.int(),
  'actual-size': z.int().optional(),
  'cluster-size': z.int().optional(),
  'backing-filename': z.string().optional(),
  'backing-filename-format': z.string().optional(),
  snapshots: z.array(z.unknown()).default([]),
});

export interface DiskInfo {
  /** Bytes that a guest sees. */
  virtualSize: number;
  /** Bytes that the file takes. */
  allocated: number;
  clusterSize: number | null;
  backing: { name: string; format: string | null } | null;
  /** Internal snapshots. */
  snapshots: number;
}

/** What the header says. Opens nothing that the header names, and works while a VM has the disk open. */
export async function info(disk: QemuDisk, signal?: AbortSignal): Promise<DiskInfo> {
  const limits = { addressSpace: 2 ** 30, cpuSeconds: 10, fileSize: 0 };
  // without -U's --backing-chain only this file is opened, so nothing need be said of what it stands on
  const alone = { ...disk, backing: undefined };
  const { stdout } = await qemuImg(['info', '-U', '--output=json', '--', diskName(alone)], disk.path, {
    cage: { reads: filesOf(alone), own: true },
    signal,
    timeoutSeconds: 30,
    limits,
  });
  const said = Info.parse(JSON.parse(stdout));
  const name = said['backing-filename'];
  return {
    virtualSize: said['virtual-size'],
    allocated: said['actual-size'] ?? 0,
    clusterSize: said['cluster-size'] ?? null,
    backing: name === undefined ? null : { name, format: said['backing-filename-format'] ?? null },
    snapshots: said.snapshots.length,
  };
}

const Check = z.object({ 'check-errors': z.int().default(0), corruptions: z.int().default(0), leaks: z.int().default(0) });

/** Counts of what is wrong with a disk's tables; all zero when it is sound. A raw disk has none to check. */
export async function check(
  disk: QemuDisk,
  signal?: AbortSignal,
): Promise<{ errors: number; corruptions: number; leaks: number }> {
  if (disk.format === 'raw') return { errors: 0, corruptions: 0, leaks: 0 };
  // 2: corrupt, 3: leaks; both come with the report.
  const { stdout } = await qemuImg(['check', '--output=json', '--', diskName(disk)], disk.path, {
    cage: { reads: filesOf(disk), own: true },
    signal,
    timeoutSeconds: 3600,
    accept: [0, 2, 3],
  });
  const said = Check.parse(JSON.parse(stdout));
  return { errors: said['check-errors'], corruptions: said.corruptions, leaks: said.leaks };
}

/** Whether two disks show a guest the same bytes; a longer one counts as equal where the rest is zero. */
export async function compare(a: QemuDisk, b: QemuDisk, signal?: AbortSignal): Promise<boolean> {
  const { exitCode } = await qemuImg(['compare', '-q', '--', diskName(a), diskName(b)], a.path, {
    cage: { reads: [...filesOf(a), ...filesOf(b)], own: true },
    signal,
    timeoutSeconds: 3600,
    accept: [0, 1],
  });
  return exitCode === 0;
}

/** Turns the output of `-p` into percentages; a piece may end inside a number. */
function percentages(report: (done: number) => void): (text: string) => void {
  let rest = '';
  return text => {
    const lines = (rest + text).split(/[\r\n]/);
    rest = (lines.pop() ?? '').slice(-100);
    for (const line of lines) {
      const found = /\((\d+\.\d+)\/100%\)/.exec(line);
      if (found !== null) report(Number(found[1]));
    }
  };
}

/**
 * Claims `path` for `make`, which gets a path that leads to exactly the file claimed, and removes it again where that fails. Claiming
 * first makes sure that nobody else's file is written or removed.
 */
async function creating(path: string, make: (held: string) => Promise<void>): Promise<void> {
  using file = await claimFile(plainPath(path)).catch(rethrow(path));
  try {
    await make(file.path);
  } catch (error) {
    await rm(path, { force: true });
    throw error;
  }
}

async function fsync(path: string): Promise<void> {
  try {
    await using file = await open(path, 'r+');
    await file.sync();
  } catch (error) {
    rethrow(path)(error);
  }
}

/**
 * After a failed fsync memory shows what the disk may not have, and no later fsync would write it or say so again (fsync(2)). So memory
 * lets go of it: what is read from now on is what the disk has. Throws `failure`, which tells where that failed too.
 */
async function forgetPages(path: string, failure: unknown): Promise<never> {
  await run('dd', [`if=${path}`, 'iflag=nocache', 'count=0', 'status=none'], { timeoutSeconds: 60 }).catch((error: unknown) => {
    const { code } = failure instanceof CisternError ? failure : { code: 'IO_ERROR' as const };
    throw new CisternError(code, `${String(failure)}; and then: ${String(error)}`, { cause: failure });
  });
  throw failure;
}

/** File errors of our own calls. NFS tells of a full disk only at fsync. */
const rethrow = (path: string) => (error: unknown) => {
  throw wrapError(error, isNoRoom(error) ? 'POOL_FULL' : 'IO_ERROR', `opening or syncing ${path}`);
};
