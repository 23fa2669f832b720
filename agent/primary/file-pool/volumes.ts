import { lstatSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CisternError } from '../../../shared/errors.ts';
import { inspectLayer } from '../../host/inspect-copy.ts';
import { resize } from '../../host/qemu-img.ts';
import { throwIfAborted } from '../../host/run.ts';
import { holdFolderSync, shown } from '../../host/held.ts';
import type { Backing, OpenDisk, VolumeSpec } from '../driver.ts';
import { backingOf } from './backing.ts';
import { cached, cacheFile, holdImage } from './cache.ts';
import { makeDurable } from './durable.ts';
import { layerWriter, type WriteLayer } from './layer.ts';
import { metaPath, readMeta, syncPath, toMeta, VolumeMeta, writeMeta } from './meta.ts';
import {
  areaPath,
  checkId,
  entryName,
  entryPath,
  fileStat,
  holdEntry,
  holdLayer,
  isFull,
  type OpenPool,
  poolError,
} from './paths.ts';
import { openScratch } from './scratch.ts';
import { allocated } from './usage.ts';
import { verifyImage } from './verify.ts';

export interface NewVolumes {
  volumes: VolumeSpec[];
  /** Bytes that a guest sees. */
  size: number;
  backing: Backing | null;
}

/** After so many volumes other work of the process gets a turn, and a cancel is seen. */
const TURN = 32;

export const layerFile = (folder: string, layerId: string): string => join(folder, `${checkId(layerId)}.qcow2`);

/**
 * Makes all of the volumes or none. They are built in `tmp`, made durable together, then published by one rename each; volumes that
 * stand already just as asked for (the same request came before) are left alone. Returns what one volume takes, in bytes.
 *
 * System calls here are the blocking ones: at a thousand volumes a call's way through the thread pool costs more than the call.
 */
export async function createVolumes(
  pool: OpenPool,
  taskId: string,
  wanted: NewVolumes,
  signal: AbortSignal,
  progress: (done: number) => void,
): Promise<{ allocated: number }> {
  const { size, backing, volumes } = wanted;
  using _hold = backing === null ? null : holdImage(pool, backing.imageId);
  if (backing !== null) await checkBacking(pool, backing, size, signal);
  const missing: VolumeSpec[] = [];
  for (const spec of volumes) if (!(await standsAlready(pool, spec, wanted))) missing.push(spec);
  if (missing.length > 0) {
    await using scratch = await openScratch(pool, taskId, 'volumes');
    const write = await layerWriter(
      size,
      backing === null ? null : { name: `../../cache/${backing.imageId}/image.${backing.format}`, format: backing.format },
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
  using folder = await holdEntry(entryPath(pool, 'volumes', first.id));
  return { allocated: folder === undefined ? 0 : await allocated(folder.path) };
}

export async function checkBacking(pool: OpenPool, backing: Backing, size: number, signal: AbortSignal): Promise<void> {
  const image = await cached(pool, backing.imageId, backing.format);
  if (image === undefined)
    throw new CisternError(
      'NOT_FOUND',
      `making volumes in ${pool.root}: the image ${backing.imageId} (${backing.format}) is not in its cache`,
    );
  // its own notes, and the bytes to go with them, may be those of another image that somebody put in its place
  if (image.digest !== backing.digest)
    throw new CisternError(
      'CACHE_DAMAGED',
      `making volumes in ${pool.root}: the image ${backing.imageId} in its cache has the digest ${image.digest}, but was published with ${backing.digest}`,
    );
  if (size < image.virtualSize)
    throw new CisternError(
      'BAD_REQUEST',
      `a volume of ${size} bytes is too small for the image ${backing.imageId}, whose disk has ${image.virtualSize} bytes`,
    );
  await verifyImage(pool, backing.imageId, backing.format, { signal });
}

/** CACHE_DAMAGED where the image that a volume stands on is: what is read through the volume would be too. */
export async function verifyBase(pool: OpenPool, volumeId: string, signal: AbortSignal): Promise<void> {
  using folder = await holdEntry(entryPath(pool, 'volumes', volumeId));
  const backing = folder && (await backingOf(folder.path));
  if (backing) await verifyImage(pool, backing.imageId, backing.format, { signal });
}

/** Whether the volume stands just as asked for. WRONG_STATE where the id is taken by one that is different. */
async function standsAlready(pool: OpenPool, spec: VolumeSpec, { size, backing }: NewVolumes): Promise<boolean> {
  const path = entryPath(pool, 'volumes', spec.id);
  if (lstatSync(path, { throwIfNoEntry: false }) === undefined) return false;
  using held = await holdEntry(path);
  if (held === undefined) return false;
  const folder = held.path;
  const meta = await readMeta(metaPath(folder), VolumeMeta);
  const same =
    meta?.layerId === spec.layerId &&
    meta.size === size &&
    meta.backing?.imageId === backing?.imageId &&
    meta.backing?.format === backing?.format;
  if (same && (await fileStat(layerFile(folder, spec.layerId))) !== undefined) return true;
  throw new CisternError(
    'WRONG_STATE',
    `making the volume ${spec.id}: ${shown(folder)} is there already and is not what was asked for`,
  );
}

/** One volume's folder in `tmp`; returns the files to make durable. */
async function buildVolume(
  folder: string,
  spec: VolumeSpec,
  { size, backing }: NewVolumes,
  write: WriteLayer,
): Promise<string[]> {
  const meta: VolumeMeta = { version: 1, ...spec, size, backing, createdAt: new Date().toISOString() };
  mkdirSync(folder, 0o755);
  using held = holdFolderSync(folder);
  await write(layerFile(held.path, spec.layerId));
  writeFileSync(metaPath(held.path), toMeta(meta), { flag: 'wx', mode: 0o644 });
  return [layerFile(folder, spec.layerId), metaPath(folder), folder];
}

/** Renames all into place, or none: what was published goes back when a later one fails. */
function publish(pool: OpenPool, scratch: string, specs: VolumeSpec[]): void {
  const done: string[] = [];
  try {
    for (const { id } of specs) {
      renameSync(join(scratch, id), entryPath(pool, 'volumes', id));
      done.push(id);
    }
  } catch (error) {
    // removed, not moved back: that could need room which a full disk has not
    for (const id of done) rmSync(entryPath(pool, 'volumes', id), { recursive: true });
    throw error;
  }
}

async function turn(signal: AbortSignal): Promise<void> {
  await new Promise(resolve => setImmediate(resolve));
  throwIfAborted(signal);
}

/** The volume's top layer, held, on what its note, or its header, says that it stands on. VOLUME_MISSING where it is not there. */
export async function volumeFile(pool: OpenPool, volumeId: string, layerId: string): Promise<OpenDisk> {
  using held = new DisposableStack();
  const path = layerFile(entryName(pool, 'volumes', volumeId), layerId);
  const folder = held.adopt(await holdEntry(entryPath(pool, 'volumes', volumeId)), one => one?.[Symbol.dispose]());
  const layer = folder && (await holdLayer(layerFile(folder.path, layerId)));
  if (folder === undefined || layer === undefined) return lost(volumeId, path);
  held.use(layer);
  await inspectLayer(layerFile(folder.path, layerId));
  const standsOn = await backingOf(folder.path);
  if (standsOn === undefined) return lost(volumeId, metaPath(folder.path));
  const backing = standsOn && { ...(await holdBase(pool, standsOn, held)), backing: null };
  const owner = held.move();
  return { path, held: layer.path, format: 'qcow2', backing, [Symbol.asyncDispose]: async () => owner.dispose() };
}

/** The cached image below a volume, held. Whoever can write to the pool must not choose what is read through the volume. */
async function holdBase(pool: OpenPool, { imageId, format }: NonNullable<VolumeMeta['backing']>, held: DisposableStack) {
  const { path } = cacheFile(pool, imageId, format);
  const folder = await holdEntry(entryPath(pool, 'cache', imageId));
  const file = folder && (await holdLayer(join(held.use(folder).path, `image.${format}`)));
  if (file === undefined) throw new CisternError('IO_ERROR', `the image that a volume stands on is not in the pool: ${path}`);
  return { path, held: held.use(file).path, format };
}

function lost(volumeId: string, what: string): never {
  throw new CisternError('VOLUME_MISSING', `looking for the volume ${volumeId}: ${shown(what)} is not there`);
}

/** Grows a volume to `size` bytes; the same size again is no error, less is BAD_REQUEST. VOLUME_IN_USE while a program has it open. */
export async function resizeVolume(
  pool: OpenPool,
  volumeId: string,
  layerId: string,
  size: number,
  signal: AbortSignal,
): Promise<{ size: number; allocated: number }> {
  await using held = new AsyncDisposableStack();
  const disk = held.use(await volumeFile(pool, volumeId, layerId));
  const folder = held.use((await holdEntry(entryPath(pool, 'volumes', volumeId))) ?? lost(volumeId, disk.path)).path;
  const meta = (await readMeta(metaPath(folder), VolumeMeta)) ?? lost(volumeId, metaPath(folder));
  if (size < meta.size)
    throw new CisternError(
      'BAD_REQUEST',
      `growing the volume ${volumeId}: it has ${meta.size} bytes already, and ${size} is less`,
    );
  try {
    await resize(disk, size, signal);
    if (size !== meta.size)
      await writeMeta(metaPath(folder), { ...meta, size }).catch((error: unknown) => {
        // the disk has grown, which its header tells: on a full pool the note of it waits for the next time
        if (!isFull(error)) throw error;
      });
  } catch (error) {
    throw poolError(error, `growing ${disk.path}`);
  }
  return { size, allocated: await allocated(folder) };
}
