/** A file system on a disk whose reads and writes fail with EIO when a test wants it, and work again when it is mended. Needs root. */
import { closeSync, openSync, readdirSync, writeFileSync } from 'node:fs';
import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { until } from '../e2e/house.ts';
import { type Disk, makeImage, mountDisk } from './disk.ts';

/** `data`: what files hold, not what the file system notes of itself. */
export type Fault = 'read' | 'write' | 'write data';

export interface BadDisk extends Disk {
  /** From now on these requests fail, until the result is disposed of. */
  breaks(...faults: Fault[]): Disposable;
  /** Unmounts and mounts it again, as an operator does with a file system that an error made read-only. */
  remountFresh(): Promise<void>;
  /** Lets go of what memory holds of its files, so that they are read from the disk. */
  forget(): Promise<void>;
}

const BLOCK = 4096;
/** One block group, so that with its inodes, bitmaps and journal packed at its beginning, the rest holds data and folders. */
const SIZE_MIB = 120;

/** An ext4 of 120 MiB, with a journal, mounted at `path` (a new folder unless given) with what lies there already. */
export async function openBadDisk(path?: string): Promise<BadDisk> {
  await using stack = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), 'bad-disk-'));
  stack.defer(() => rm(folder, { recursive: true, force: true }));
  const [behind, faults, served] = ['behind', 'faults', 'served'].map(name => join(folder, name)) as [string, string, string];
  await makeImage('ext4', behind, SIZE_MIB, ['-E', 'packed_meta_blocks=1']);
  await writeFile(faults, '');
  await mkdir(served);
  stack.use(await serve(served, behind, faults));
  const image = join(served, 'disk');
  const before = join(folder, 'before');
  if (path !== undefined) await cp(path, before, { recursive: true });
  const disk = stack.use(await mountDisk('ext4', image, path ?? join(folder, 'mnt')));
  await rm(join(disk.path, 'lost+found'), { recursive: true, force: true });
  if (path !== undefined) await cp(before, path, { recursive: true });
  const data = await firstFree(behind);
  const whole = `0 ${SIZE_MIB * 2 ** 20}`;
  const lines = { read: `read ${whole}`, write: `write ${whole}`, 'write data': `write ${data} ${SIZE_MIB * 2 ** 20}` };
  const owner = stack.move();
  return {
    ...disk,
    breaks: (...which) => {
      writeFileSync(faults, which.map(one => lines[one]).join('\n'));
      return { [Symbol.dispose]: () => writeFileSync(faults, '') };
    },
    remountFresh: async () => {
      await until(
        'nobody is at work in it',
        async () => (await execa('umount', ['--', disk.path], { reject: false })).exitCode === 0,
      );
      await execa('mount', ['-o', 'loop', '--', image, disk.path]);
    },
    forget: () => forget(disk.path),
    [Symbol.asyncDispose]: () => owner.disposeAsync(),
  };
}

async function forget(folder: string): Promise<void> {
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true }))
    if (entry.isFile())
      await execa('dd', [`if=${join(entry.parentPath, entry.name)}`, 'iflag=nocache', 'count=0', 'status=none']);
}

/** Mounts what `fuse-file.ts` serves. Threads of the test must never wait for that file, or it is not served: so in a process of its own. */
async function serve(at: string, behind: string, faults: string): Promise<AsyncDisposable> {
  const fuse = openSync('/dev/fuse', 'r+');
  try {
    const stdio = ['ignore', 'inherit', 'inherit', fuse as 3] as const; // execa takes any descriptor, its types only those up to 9
    const how = 'fd=3,rootmode=40000,user_id=0,group_id=0,allow_other,max_read=1048576';
    await execa('mount', ['-i', '-t', 'fuse', '-o', how, '--', 'bad-disk', at], { stdio });
    const program = join(import.meta.dirname, 'fuse-file.ts');
    const child = execa(process.execPath, [program, '3', behind, faults], { stdio, reject: false });
    return {
      [Symbol.asyncDispose]: async () => {
        await execa('umount', ['-l', '--', at]);
        await child;
      },
    };
  } finally {
    closeSync(fuse);
  }
}

/** Where data may begin, in bytes: behind the superblock, the descriptors, bitmaps, inodes and the journal. */
async function firstFree(image: string): Promise<number> {
  const { stdout } = await execa('dumpe2fs', [image]);
  const block = /^ {2}Free blocks: (\d+)/m.exec(stdout)?.[1];
  if (block === undefined) throw new Error(`dumpe2fs told of no free block:\n${stdout}`);
  return Number(block) * BLOCK;
}
