/**
 * Controller and agent, the pool, and the store each on a disk of its own, so that no sync of one brings the others' changes to the disk;
 * and power cuts under all of them at once.
 */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { type Cistern } from '../../servers/cistern.ts';
import { type Disk, type DiskKind, makeImage, mountDisk } from '../../servers/disk.ts';
import { descendants } from '../../servers/processes.ts';

/** MiB; nothing of it is taken before it is used. */
const SIZE = 500;

export interface CutDisks extends AsyncDisposable {
  /** One more disk, mounted at `path`. */
  add(name: string, path: string): Promise<void>;
  /** Keeps what the devices hold now as the cut `n`: in one moment, since those who write stand still. */
  cut(n: number, cistern: Cistern): Promise<void>;
  /** Puts the disks as the cut `n` left them in the place of those that are mounted. */
  mountCut(n: number): Promise<void>;
}

/** Disks whose devices are files in `shelf`, a folder on a file system that can clone files. */
export function cutDisks(kind: DiskKind, shelf: string): CutDisks {
  const disks: { name: string; path: string; disk: Disk }[] = [];
  const unmount = async (): Promise<void> => {
    for (const { disk } of [...disks].reverse()) await disk[Symbol.asyncDispose]();
  };
  const cutOf = (name: string, n: number): string => join(shelf, `${name}-cut-${n}`);
  return {
    async add(name, path) {
      const image = join(shelf, name);
      await makeImage(kind, image, SIZE);
      await mkdir(path, { recursive: true });
      disks.push({ name, path, disk: await mountDisk(kind, image, path) });
      await execa('rm', ['-rf', '--', join(path, 'lost+found')]);
    },
    async cut(n, { controller, agents }) {
      const services = [controller, ...agents].map(one => one.pid);
      const everybody = [...services, ...(await Promise.all(services.map(descendants))).flat()];
      for (const pid of everybody) signal(pid, 'SIGSTOP');
      try {
        for (const { name } of disks) await execa('cp', ['--reflink=always', '--', join(shelf, name), cutOf(name, n)]);
      } finally {
        for (const pid of everybody) signal(pid, 'SIGCONT');
      }
    },
    async mountCut(n) {
      await unmount();
      for (const one of disks) one.disk = await mountDisk(kind, cutOf(one.name, n), one.path);
    },
    [Symbol.asyncDispose]: async () => {
      await unmount();
      disks.length = 0;
    },
  };
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error; // it ended meanwhile
  }
}
