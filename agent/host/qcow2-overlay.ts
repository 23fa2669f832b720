import * as fs from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { wrapError } from '../../shared/errors.ts';
import { overlayImage } from './qcow2-layout.ts';
import type { OverlayImage, OverlaySpec } from './qcow2-layout.ts';

export { overlayImage } from './qcow2-layout.ts';
export type { OverlayImage, OverlaySpec } from './qcow2-layout.ts';

/**
 * Writes `image` to the new file `path`; the header comes last, so a file that a crash cut off is no qcow2. With `sync`, the rest and
 * then the header are on the disk before it returns; the caller syncs the folder. It blocks: near 0.1 ms without `sync` (promises
 * take several times as long), so let the event loop run between many. Any failure (a file that is there already too) is IO_ERROR
 * and leaves nothing of ours.
 */
export function writeOverlay(path: string, image: OverlayImage, options: { sync: boolean }): void {
  let created = false;
  try {
    const fd = fs.openSync(path, 'wx', 0o600);
    created = true;
    try {
      fill(fd, image, options.sync);
    } finally {
      // network file systems may report a failed write only here
      fs.closeSync(fd);
    }
  } catch (error) {
    if (created) fs.rmSync(path, { force: true });
    throw wrapError(error, 'IO_ERROR', `writing the overlay ${path}`);
  }
}

function fill(fd: number, image: OverlayImage, sync: boolean): void {
  fs.ftruncateSync(fd, image.length);
  image.chunks.forEach(({ offset, data }, i) => {
    if (sync && i === image.chunks.length - 1) fs.fdatasyncSync(fd);
    const written = fs.writeSync(fd, data, 0, data.length, offset);
    if (written !== data.length) throw new Error(`only ${written} of ${data.length} bytes were written at byte ${offset}`);
  });
  // as qemu-img leaves it, whatever the umask: the VM may run as another user
  fs.fchmodSync(fd, 0o644);
  if (sync) fs.fsyncSync(fd);
}

/** What the oracle compares: alone, and on each kind of backing, with a size that is no whole number of anything. */
const ORACLE: readonly { name: string; spec: OverlaySpec }[] = [
  { name: 'base.qcow2', spec: { size: 3 * 2 ** 30 + 512, backing: null } },
  { name: 'base.raw.qcow2', spec: { size: 2 ** 20, backing: null, extendedL2: false, clusterBits: 16 } },
  { name: 'on-qcow2.qcow2', spec: { size: 5 * 2 ** 30 + 512, backing: { name: 'base.qcow2', format: 'qcow2' } } },
  // any file is a raw disk
  { name: 'on-raw.qcow2', spec: { size: 2 ** 40, backing: { name: 'base.raw.qcow2', format: 'raw' } } },
];

/**
 * Whether the installed qemu-img, through `createWithQemuImg`, writes the very bytes that `overlayImage` makes; ask once when a worker
 * starts, and leave overlays to qemu-img where it says no. Works in a folder of its own below `dir` and removes it. What
 * `createWithQemuImg` throws (a qemu-img that is missing, or too old for extended L2 entries) is passed on.
 */
export async function overlayMatches(
  createWithQemuImg: (path: string, spec: OverlaySpec) => Promise<void>,
  dir: string,
): Promise<boolean> {
  const folder = await mkdtemp(join(dir, 'overlay-oracle-')).catch((error: unknown) => {
    throw wrapError(error, 'IO_ERROR', `making a folder in ${dir}`);
  });
  try {
    for (const { name, spec } of ORACLE) {
      const theirs = join(folder, name);
      await createWithQemuImg(theirs, spec);
      const image = overlayImage(spec);
      if (!image || !(await readFile(theirs)).equals(overlayBytes(image))) return false;
    }
    return true;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The whole file in memory: near 400 KiB for common sizes. */
export function overlayBytes(image: OverlayImage): Buffer {
  const bytes = Buffer.alloc(image.length);
  for (const { offset, data } of image.chunks) data.copy(bytes, offset);
  return bytes;
}
