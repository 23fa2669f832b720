/** Small file systems of their own, through loop devices: they can be full, read-only, and copied as a power cut would leave them. Needs root. */
import { closeSync, fsyncSync, ftruncateSync, openSync, statfsSync, writeSync } from 'node:fs';
import { cp, mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';

export type DiskKind = 'ext4' | 'xfs';

export interface Disk extends AsyncDisposable {
  kind: DiskKind;
  /** Where it is mounted. */
  path: string;
  /** The file behind its device. */
  image: string;
  /** Takes all room but `blocks` of 4 KiB; there is room again once the result is disposed of. */
  fill(blocks?: number): Promise<Disposable>;
  remount(how: 'ro' | 'rw'): Promise<void>;
}

const MiB = 2 ** 20;
/** mkfs.xfs makes none below 300 MiB. Nothing of it is allocated before it is used. */
const LEAST = { ext4: 16, xfs: 300 };
const BLOCK = 4096;

/** A new file system of `size` MiB at least, mounted at `path` (a new folder unless given) with what lies there already. */
export async function openDisk(kind: DiskKind, options: { size?: number; path?: string } = {}): Promise<Disk> {
  const folder = await mkdtemp(join(tmpdir(), 'disk-'));
  const image = join(folder, 'image');
  await makeImage(kind, image, options.size);
  const path = options.path ?? join(folder, 'mnt');
  const before = join(folder, 'before');
  if (options.path !== undefined) await cp(path, before, { recursive: true });
  const disk = await mountDisk(kind, image, path);
  await rm(join(path, 'lost+found'), { recursive: true, force: true });
  if (options.path !== undefined) await cp(before, path, { recursive: true });
  return {
    ...disk,
    [Symbol.asyncDispose]: async () => {
      await disk[Symbol.asyncDispose]();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** An empty file system of `size` MiB at least in the new file `image`. */
export async function makeImage(kind: DiskKind, image: string, size = 0, more: string[] = []): Promise<void> {
  await writeFile(image, '');
  await truncate(image, Math.max(size, LEAST[kind]) * MiB);
  const own = kind === 'ext4' ? ['-q', '-F', '-m', '0', '-b', String(BLOCK)] : ['-q'];
  await execa(`mkfs.${kind}`, [...own, ...more, image]);
}

/** Mounts what is in the file `image`; a journal that a power cut left is replayed. */
export async function mountDisk(kind: DiskKind, image: string, path: string): Promise<Disk> {
  await mkdir(path, { recursive: true });
  // two copies of one XFS have one UUID, and may be mounted one after the other before the kernel has forgotten the first
  await execa('mount', ['-t', kind, '-o', kind === 'xfs' ? 'loop,nouuid' : 'loop', '--', image, path]);
  return {
    kind,
    path,
    image,
    fill: blocks => fill(path, blocks ?? 0),
    remount: async how => void (await execa('mount', ['-o', `remount,${how}`, '--', path])),
    // lazy: a process that a failed test left in it must not keep the rest from being tidied up
    [Symbol.asyncDispose]: async () => void (await execa('umount', ['-l', '--', path])),
  };
}

async function fill(folder: string, blocks: number): Promise<Disposable> {
  const ballast = join(folder, 'ballast');
  const file = openSync(ballast, 'w');
  try {
    const free = statfsSync(folder).bavail * BLOCK;
    const most = String(Math.max(BLOCK, free - 2 * MiB));
    const taken = await execa('fallocate', ['-l', most, '--', ballast], { reject: false });
    let size = taken.exitCode === 0 ? Number(most) : 0;
    // a file system keeps some room for what is not on the disk yet: so once more after that is
    for (const piece of [16 * BLOCK, BLOCK, BLOCK]) {
      size = appendAll(file, size, Buffer.alloc(piece, 1));
      fsyncSync(file);
    }
    ftruncateSync(file, Math.max(0, size - blocks * BLOCK));
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  return { [Symbol.dispose]: () => closeSync(openSync(ballast, 'w')) };
}

/** Writes pieces from `at` on until there is no room; returns where it ended. */
function appendAll(file: number, at: number, piece: Buffer): number {
  for (;;) {
    try {
      at += writeSync(file, piece, 0, piece.length, at);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
      return at;
    }
  }
}
