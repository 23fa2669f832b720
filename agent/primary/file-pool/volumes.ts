import { lstatSync, mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CisternError } from '../../../shared/errors.ts';
import type { ImageFormat } from '../../../shared/model.ts';
import { inspectLayer } from '../../host/inspect-copy.ts';
import { resize } from '../../host/qemu-img.ts';
import { throwIfAborted } from '../../host/run.ts';
import type { DiskFile, VolumeSpec } from '../driver.ts';
import { cached, cacheFile, holdImage } from './cache.ts';
import { makeDurable } from './durable.ts';
import { layerWriter, type WriteLayer } from './layer.ts';
import { metaPath, readMeta, syncPath, toMeta, VolumeMeta, writeMeta } from './meta.ts';
import { areaPath, checkId, entryPath, fileStat, isFolder, isFull, poolError, type PoolRoot } from './paths.ts';
import { openScratch } from './scratch.ts';

export interface NewVolumes {
  volumes: VolumeSpec[];
  /** Bytes that a guest sees. */
  size: number;
  backing: { imageId: string; format: ImageFormat } | null;
}

/** After so many volumes other work of the process gets a turn, and a cancel is seen. */
const TURN = 32;

const layerFile = (folder: string, layerId: string): string => join(folder, `${checkId(layerId)}.qcow2`);

/**
 * Makes all of the volumes or none. They are built in `tmp`, made durable together, then published by one rename each; volumes that
 * stand already just as asked for (the same request came before) are left alone. Returns what one volume takes, in bytes.
 *
 * System calls here are the blocking ones: at a thousand volumes a call's way through the thread pool costs more than the call.
 */
export async function createVolumes(
  pool: PoolRoot,
  taskId: string,
  wanted: NewVolumes,
  signal: AbortSignal,
  progress: (done: number) => void,
): Promise<{ allocated: number }> {
  const { size, backing, volumes } = wanted;
  using _hold = backing === null ? null : holdImage(pool, backing.imageId);
  if (backing !== null) await checkBacking(pool, backing, size);
  const missing: VolumeSpec[] = [];
  for (const spec of volumes) if (!(await standsAlready(pool, spec, wanted))) missing.push(spec);
  if (missing.length > 0) {
    await using scratch = await openScratch(pool, taskId, 'volumes');
    const write = await layerWriter(
      size,
      backing === null ? null : { name: `../../cache/${backing.imageId}/image.${backing.format}`, format: backing.format },
      scratch.path,
      signal,
    );
    try {
      const files: string[] = [];
      for (const [i, spec] of missing.entries()) {
        if (i % TURN === TURN - 1) await turn(signal);
        files.push(...(await buildVolume(join(scratch.path, checkId(spec.id)), spec, wanted, write)));
        progress(volumes.length - missing.length + i + 1);
      }
      await makeDurable(scratch.path, files, signal);
      throwIfAborted(signal);
      publish(pool, scratch.path, missing);
      await syncPath(areaPath(pool, 'volumes'));
    } catch (error) {
      throw poolError(error, `making ${missing.length} volumes in ${pool.root}`);
    }
  }
  const first = volumes[0]!;
  return { allocated: (await fileStat(layerFile(entryPath(pool, 'volumes', first.id), first.layerId)))?.allocated ?? 0 };
}

async function checkBacking(pool: PoolRoot, backing: { imageId: string; format: ImageFormat }, size: number): Promise<void> {
  const image = await cached(pool, backing.imageId, backing.format);
  if (image === undefined)
    throw new CisternError(
      'NOT_FOUND',
      `making volumes in ${pool.root}: the image ${backing.imageId} (${backing.format}) is not in its cache`,
    );
  if (size < image.virtualSize)
    throw new CisternError(
      'BAD_REQUEST',
      `a volume of ${size} bytes is too small for the image ${backing.imageId}, whose disk has ${image.virtualSize} bytes`,
    );
}

/** Whether the volume stands just as asked for. WRONG_STATE where the id is taken by one that is different. */
async function standsAlready(pool: PoolRoot, spec: VolumeSpec, { size, backing }: NewVolumes): Promise<boolean> {
  const folder = entryPath(pool, 'volumes', spec.id);
  if (lstatSync(folder, { throwIfNoEntry: false }) === undefined) return false;
  const meta = (await isFolder(folder)) ? await readMeta(metaPath(folder), VolumeMeta) : undefined;
  const same =
    meta?.layerId === spec.layerId &&
    meta.size === size &&
    meta.backing?.imageId === backing?.imageId &&
    meta.backing?.format === backing?.format;
  if (same && (await fileStat(layerFile(folder, spec.layerId))) !== undefined) return true;
  throw new CisternError('WRONG_STATE', `making the volume ${spec.id}: ${folder} is there already and is not what was asked for`);
}

/** One volume's folder in `tmp`; returns the files to make durable. */
async function buildVolume(
  folder: string,
  spec: VolumeSpec,
  { size, backing }: NewVolumes,
  write: WriteLayer,
): Promise<string[]> {
  const meta: VolumeMeta = { version: 1, id: spec.id, layerId: spec.layerId, size, backing, createdAt: new Date().toISOString() };
  const layer = layerFile(folder, spec.layerId);
  mkdirSync(folder, 0o755);
  await write(layer);
  writeFileSync(metaPath(folder), toMeta(meta), { flag: 'wx', mode: 0o644 });
  return [layer, metaPath(folder)];
}

/** Renames all into place, or none: what was published goes back when a later one fails. */
function publish(pool: PoolRoot, scratch: string, specs: VolumeSpec[]): void {
  const done: string[] = [];
  try {
    for (const { id } of specs) {
      renameSync(join(scratch, id), entryPath(pool, 'volumes', id));
      done.push(id);
    }
  } catch (error) {
    for (const id of done) renameSync(entryPath(pool, 'volumes', id), join(scratch, id));
    throw error;
  }
}

async function turn(signal: AbortSignal): Promise<void> {
  await new Promise(resolve => setImmediate(resolve));
  throwIfAborted(signal);
}

/** The volume's top layer, on what its note says that it stands on. VOLUME_MISSING where layer or note is not there. */
export async function volumeFile(pool: PoolRoot, volumeId: string, layerId: string): Promise<DiskFile> {
  const folder = entryPath(pool, 'volumes', volumeId);
  const path = layerFile(folder, layerId);
  const missing = (file: string): CisternError =>
    new CisternError('VOLUME_MISSING', `looking for the volume ${volumeId}: ${file} is not there`);
  if (!(await isFolder(folder)) || (await fileStat(path)) === undefined) throw missing(path);
  const meta = await readMeta(metaPath(folder), VolumeMeta);
  if (meta === undefined) throw missing(metaPath(folder));
  await inspectLayer(path);
  const { backing } = meta;
  return { path, format: 'qcow2', backing: backing && { ...cacheFile(pool, backing.imageId, backing.format), backing: null } };
}

/** Grows a volume to `size` bytes; the same size again is no error, less is BAD_REQUEST. VOLUME_IN_USE while a program has it open. */
export async function resizeVolume(
  pool: PoolRoot,
  volumeId: string,
  layerId: string,
  size: number,
  signal: AbortSignal,
): Promise<{ size: number; allocated: number }> {
  const disk = await volumeFile(pool, volumeId, layerId);
  const path = metaPath(entryPath(pool, 'volumes', volumeId));
  const meta = await readMeta(path, VolumeMeta);
  if (meta === undefined) throw new CisternError('VOLUME_MISSING', `growing the volume ${volumeId}: ${path} is not there`);
  if (size < meta.size)
    throw new CisternError(
      'BAD_REQUEST',
      `growing the volume ${volumeId}: it has ${meta.size} bytes already, and ${size} is less`,
    );
  try {
    await resize(disk, size, signal);
    if (size !== meta.size)
      await writeMeta(path, { ...meta, size }).catch((error: unknown) => {
        // the disk has grown, which its header tells: on a full pool the note of it waits for the next time
        if (!isFull(error)) throw error;
      });
  } catch (error) {
    throw poolError(error, `growing ${disk.path}`);
  }
  return { size, allocated: (await fileStat(disk.path))?.allocated ?? 0 };
}
