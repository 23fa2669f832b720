import { join } from 'node:path';
import type { CommandOutput } from '../../../shared/commands/index.ts';
import type { FoundVolume } from '../../../shared/commands/pool.ts';
import { CisternError } from '../../../shared/errors.ts';
import { shown } from '../../host/held.ts';
import { openImage } from '../../host/inspect/file.ts';
import { readHeader } from '../../host/inspect/qcow2-header.ts';
import { check } from '../../host/qemu-img.ts';
import { throwIfAborted } from '../../host/run.ts';
import { baseInHeader } from './backing.ts';
import { CacheMeta, metaPath, readMeta, VolumeMeta } from './meta.ts';
import { type OpenPool } from './paths.ts';
import { allocated, eachEntry } from './usage.ts';
import { layerFile, volumeFile } from './volumes.ts';

/** Everything in a pool with what its meta.json and headers tell; a damaged one is told of, and stops nothing. */
export async function scan(
  pool: OpenPool,
  options: { check: boolean },
  signal: AbortSignal,
): Promise<CommandOutput<'pool.scan'>> {
  const sound = new Set<string>();
  const cache = await eachEntry(pool, 'cache', signal, async (imageId, folder) => {
    const meta = await readMeta(metaPath(folder), CacheMeta).catch(() => undefined);
    if (meta !== undefined) sound.add(imageId);
    return { imageId, allocated: await allocated(folder) };
  });
  const found = (area: 'volumes' | 'trash'): Promise<FoundVolume[]> =>
    eachEntry(pool, area, signal, async (id, folder) => {
      const meta = await readMeta(metaPath(folder), VolumeMeta).catch(() => undefined);
      return { ...noted(id, meta), allocated: await allocated(folder), ...(await examine(folder, meta, sound)) };
    });
  const volumes = await found('volumes');
  if (options.check)
    for (const volume of volumes) {
      throwIfAborted(signal);
      if (volume.problem === null && volume.layerId !== null)
        volume.problem = await checkChain(pool, volume.id, volume.layerId, signal);
    }
  return { volumes, trash: await found('trash'), cache };
}

/** What the note of a volume tells of it. */
export const noted = (id: string, meta: VolumeMeta | undefined): Omit<FoundVolume, 'allocated' | 'problem'> => ({
  id,
  layerId: meta?.layerId ?? null,
  name: meta?.name ?? null,
  kind: meta?.kind ?? null,
  size: meta?.size ?? null,
  imageId: meta?.backing?.imageId ?? null,
  createdAt: meta?.createdAt ?? null,
});

/** What a guest would see of a volume, by the header of its layer, and what is plainly wrong. `sound`: the images in the cache. */
async function examine(
  folder: string,
  meta: VolumeMeta | undefined,
  sound: Set<string>,
): Promise<Pick<FoundVolume, 'problem'> & { size?: number }> {
  if (meta === undefined) return { problem: 'its meta.json is missing or damaged' };
  try {
    const layer = layerFile(folder, meta.layerId);
    await using file = await openImage(layer);
    const { virtualSize: size } = await readHeader(file);
    const base = await baseInHeader(layer);
    if (base === undefined || base?.imageId !== meta.backing?.imageId || base?.format !== meta.backing?.format)
      return { size, problem: 'its header names another base than its meta.json' };
    if (base !== null && !sound.has(base.imageId))
      return { size, problem: `the cached image ${base.imageId} that it stands on is not there` };
    return { size, problem: null };
  } catch (error) {
    return { problem: error instanceof Error ? shown(error.message) : String(error) };
  }
}

/** What qemu-img finds wrong with the tables of a volume; null where it is sound, or a program has it open. */
async function checkChain(pool: OpenPool, id: string, layerId: string, signal: AbortSignal): Promise<string | null> {
  try {
    await using disk = await volumeFile(pool, id, layerId);
    const { errors, corruptions } = await check(disk, signal);
    return errors + corruptions === 0
      ? null
      : `qemu-img check ${join(id, layerId)}: ${corruptions} corruptions, ${errors} errors`;
  } catch (error) {
    if (signal.aborted || !(error instanceof CisternError)) throw error;
    return error.code === 'VOLUME_IN_USE' ? null : error.message;
  }
}
