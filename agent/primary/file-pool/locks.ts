import { lstat, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { holdFile } from '../../host/held.ts';
import { diskName, filesOf, qemuImg } from '../../host/qemu-img-run.ts';
import { entryName, entryPath, holdEntry, type OpenPool } from './paths.ts';

/** Volumes looked at side by side, each perhaps by a qemu-img process. */
const WIDTH = 2;

/**
 * VOLUME_IN_USE where a VM or another program writes to one of the volumes: qemu's own image lock is the judge, on NFS also for other
 * hosts. A process per disk is dear for a thousand of them, so on a pool that only this host sees those without any lock in
 * /proc/locks are not asked about.
 */
export async function refuseOpen(pool: OpenPool, volumeIds: string[], signal?: AbortSignal): Promise<void> {
  const locked = pool.shared ? undefined : await lockedInodes();
  let next = 0;
  const lane = async (): Promise<void> => {
    for (let i = next++; i < volumeIds.length; i = next++) await refuseOpenVolume(pool, volumeIds[i]!, locked, signal);
  };
  await Promise.all(Array.from({ length: Math.min(WIDTH, volumeIds.length) }, lane));
}

async function refuseOpenVolume(
  pool: OpenPool,
  id: string,
  locked: Set<string> | undefined,
  signal?: AbortSignal,
): Promise<void> {
  using folder = await holdEntry(entryPath(pool, 'volumes', id));
  if (folder === undefined) return;
  for (const entry of await readdir(folder.path, { withFileTypes: true })) {
    if (!entry.isFile() || !entry.name.endsWith('.qcow2')) continue;
    const path = join(folder.path, entry.name);
    if (locked !== undefined && !locked.has(String((await lstat(path)).ino))) continue;
    using file = await holdFile(path);
    const shown = join(entryName(pool, 'volumes', id), entry.name);
    // Without -U, info asks for the lock; it opens nothing that the header names.
    const disk = { path: shown, held: file.path, format: 'qcow2' as const };
    const cage = { reads: filesOf(disk), own: true };
    await qemuImg(['info', '--output=json', '--', diskName(disk)], shown, { cage, signal, timeoutSeconds: 30 });
  }
}

/**
 * Inode numbers that have a lock on this host. The device number is left out, since btrfs and overlayfs show another one in stat: a
 * chance match costs one question more. (Fields of /proc/locks: proc_locks(5); open-file-description locks of all PID namespaces are
 * listed.)
 */
async function lockedInodes(): Promise<Set<string>> {
  const inodes = new Set<string>();
  for (const [, inode] of (await readFile('/proc/locks', 'utf8')).matchAll(/ [0-9a-f]+:[0-9a-f]+:(\d+) /g)) inodes.add(inode!);
  return inodes;
}
