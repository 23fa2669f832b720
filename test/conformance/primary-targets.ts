import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, readlink, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { findPrimaryDriver } from '../../agent/primary/registry.ts';
import type { Pool } from '../../agent/primary/driver.ts';
import { newId } from '../../shared/id.ts';

export const exec = promisify(execFile);
export const signal = new AbortController().signal;

/** A place that a pool of some type can be made in. */
export interface Place extends AsyncDisposable {
  type: string;
  config: Record<string, unknown>;
  /** Where the pool's files show on this machine. */
  root: string;
  /** A folder beside the pool, for what must stay as it is. */
  outside: string;
  mountDir: string;
  /** Takes the storage away under an open pool. */
  vanish(): Promise<void>;
}

/** A folder of the machine's own disk. */
export async function folderPlace(): Promise<Place> {
  const { base, ...place } = await places();
  return {
    ...place,
    vanish: () => rm(place.root, { recursive: true }),
    [Symbol.asyncDispose]: () => rm(base, { recursive: true, force: true }),
  };
}

/** An ext4 of `size` MiB of its own, mounted through a loop device: it can be full, and it can be unmounted. Needs root. */
export async function ext4Place(size = 48): Promise<Place> {
  const { base, ...place } = await places();
  const disk = join(base, 'disk');
  await writeFile(disk, '');
  await truncate(disk, size * 2 ** 20);
  await exec('mkfs.ext4', ['-q', '-F', '-m', '0', disk]);
  await exec('mount', ['-o', 'loop', '--', disk, place.root]);
  let mounted = true;
  const vanish = async (): Promise<void> => {
    if (mounted) await exec('umount', ['--', place.root]);
    mounted = false;
  };
  return {
    ...place,
    vanish,
    [Symbol.asyncDispose]: async () => {
      await vanish();
      await rm(base, { recursive: true, force: true });
    },
  };
}

async function places() {
  const base = await mkdtemp(join(tmpdir(), 'cistern-pool-'));
  const [root, outside, mountDir] = ['pool', 'outside', 'mnt'].map(name => join(base, name)) as [string, string, string];
  for (const folder of [root, outside, mountDir]) await mkdir(folder);
  return { base, root, outside, mountDir, type: 'local', config: { path: root } };
}

/** Connects through the registry, as the agent does. */
export async function connect(place: Place, id: string, initialize: boolean): Promise<Pool> {
  const driver = findPrimaryDriver(place.type);
  return driver.connect({ id, config: driver.config.parse(place.config) }, { initialize, signal, mountDir: place.mountDir });
}

/** A new pool in the place. */
export async function newPool(place: Place): Promise<{ id: string; pool: Pool }> {
  const id = newId();
  return { id, pool: await connect(place, id, true) };
}

/** Every name below a folder with what it is: to see that nothing was added, changed or removed. */
export async function tree(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const lines = entries
    .filter(entry => entry.name !== 'lost+found')
    .map(async entry => {
      const path = join(entry.parentPath, entry.name);
      const name = path.slice(folder.length + 1);
      if (entry.isSymbolicLink()) return `${name} -> ${await readlink(path)}`;
      return entry.isFile() ? `${name}: ${(await readFile(path)).toString('base64').slice(0, 100)}` : `${name}/`;
    });
  return (await Promise.all(lines)).sort();
}
