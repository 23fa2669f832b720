import { lstat, readFile } from 'node:fs/promises';
import { diskName, qemuImg, type QemuDisk } from '../../host/qemu-img-run.ts';

/** qemu-img processes that ask at the same time. */
const WIDTH = 2;

/**
 * VOLUME_IN_USE where a VM or another program writes to one of `disks`: qemu's own image lock is the judge, on NFS also for other
 * hosts. A process per disk is dear for a thousand of them, so on a pool that only this host sees those without any lock in
 * /proc/locks are not asked about.
 */
export async function refuseOpen(disks: QemuDisk[], shared: boolean, signal?: AbortSignal): Promise<void> {
  const doubtful = shared ? disks : await locked(disks);
  let next = 0;
  const lane = async (): Promise<void> => {
    for (let i = next++; i < doubtful.length; i = next++) {
      const disk = doubtful[i]!;
      // Without -U, info asks for the lock; it opens nothing that the header names.
      await qemuImg(['info', '--output=json', '--', diskName(disk)], disk.path, { signal, timeoutSeconds: 30 });
    }
  };
  await Promise.all(Array.from({ length: Math.min(WIDTH, doubtful.length) }, lane));
}

/**
 * Disks whose inode number has a lock on this host. The device number is left out, since btrfs and overlayfs show another one in
 * stat: a chance match costs one question more. (Fields of /proc/locks: proc_locks(5); open-file-description locks of all
 * PID namespaces are listed.)
 */
async function locked(disks: QemuDisk[]): Promise<QemuDisk[]> {
  const inodes = new Set<string>();
  for (const [, inode] of (await readFile('/proc/locks', 'utf8')).matchAll(/ [0-9a-f]+:[0-9a-f]+:(\d+) /g)) inodes.add(inode!);
  const found: QemuDisk[] = [];
  for (const disk of disks) if (inodes.has(String((await lstat(disk.path)).ino))) found.push(disk);
  return found;
}
