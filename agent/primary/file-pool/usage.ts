import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { CommandOutput } from '../../../shared/commands/index.ts';
import { throwIfAborted } from '../../host/run.ts';
import { capacity } from './identity.ts';
import { metaPath, readMeta, VolumeMeta } from './meta.ts';
import { type Area, areaPath, holdEntry, isId, type OpenPool, poolError } from './paths.ts';

/** Entries looked at side by side: enough to hide the latency of a server, few enough to leave it room for the volumes. */
const WIDTH = 16;

/** Free space, and what each cached image, volume and trash entry takes (bytes of its blocks, not of its length). */
export async function usage(pool: OpenPool, signal: AbortSignal): Promise<CommandOutput<'pool.usage'>> {
  const measure = (area: Area) =>
    eachEntry(pool, area, signal, async (id, folder) => ({ id, allocated: await allocated(folder) }));
  const cache = await measure('cache');
  const volumes = await measure('volumes');
  const trash = await eachEntry(pool, 'trash', signal, async (id, folder) => ({
    id,
    allocated: await allocated(folder),
    deletedAt: (await deletedAt(folder)).toISOString(),
  }));
  return { capacity: await capacity(pool), cache: cache.map(c => ({ imageId: c.id, allocated: c.allocated })), volumes, trash };
}

/**
 * When a volume went to the trash. A crash right after its rename leaves no note of it: then the rename itself is the time. So it is
 * for one whose note is damaged, since that must not keep all the others in the trash.
 */
export async function deletedAt(folder: string): Promise<Date> {
  const meta = await readMeta(metaPath(folder), VolumeMeta).catch(() => undefined);
  return meta?.deletedAt === undefined ? (await lstat(folder)).ctime : new Date(meta.deletedAt);
}

/** Bytes that the files of an entry take. What vanishes meanwhile counts nothing. */
export async function allocated(folder: string): Promise<number> {
  const names = await readdir(folder).catch(vanished);
  const stats = await Promise.all((names ?? []).map(name => lstat(join(folder, name)).catch(vanished)));
  return stats.reduce((sum, stat) => sum + (stat?.isFile() === true ? stat.blocks * 512 : 0), 0);
}

/**
 * `work` for each entry of an area, with its folder held, a few at a time, in the order of the area; names that are not ids are no
 * entries, nor is what goes away meanwhile.
 */
export async function eachEntry<T>(
  pool: OpenPool,
  area: Area,
  signal: AbortSignal | undefined,
  work: (id: string, folder: string) => Promise<T>,
): Promise<T[]> {
  try {
    const entries = await readdir(areaPath(pool, area), { withFileTypes: true });
    const ids = entries.filter(entry => entry.isDirectory() && isId(entry.name)).map(entry => entry.name);
    const results: T[][] = ids.map(() => []);
    let next = 0;
    const lane = async (): Promise<void> => {
      for (let i = next++; i < ids.length; i = next++) {
        throwIfAborted(signal);
        using held = await holdEntry(join(areaPath(pool, area), ids[i]!));
        if (held !== undefined) results[i] = [await work(ids[i]!, held.path)];
      }
    };
    await Promise.all(Array.from({ length: Math.min(WIDTH, ids.length) }, lane));
    return results.flat(1) as T[];
  } catch (error) {
    throw poolError(error, `reading ${areaPath(pool, area)}`);
  }
}

function vanished(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
}
