import { lstatSync, mkdirSync, renameSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { CisternError } from '../../../shared/errors.ts';
import { holdFolderSync } from '../../host/held.ts';
import { inspectLayer } from '../../host/inspect-copy.ts';
import { compare, convert, info } from '../../host/qemu-img.ts';
import { fileSink, fileSource } from '../../transfer/file-end.ts';
import { nowhere } from '../../transfer/nowhere.ts';
import { transfer } from '../../transfer/transfer.ts';
import type { Backing, Copied, CopyOptions, DiskFile, VolumeSpec } from '../driver.ts';
import { baseInHeader } from './backing.ts';
import { holdImage } from './cache.ts';
import { openFill, sweepFills } from './fill.ts';
import { createFile, metaPath, syncPath, toMeta, type VolumeMeta } from './meta.ts';
import { openPool } from './identity.ts';
import { areaPath, entryPath, holdEntry, type OpenPool, poolError } from './paths.ts';
import { discard } from './scratch.ts';
import { allocated } from './usage.ts';
import { checkBacking, layerFile, volumeFile } from './volumes.ts';

const PART_SIZE = 16 * 2 ** 20;
const CODES = { full: 'POOL_FULL', broken: 'POOL_IO_ERROR' } as const;

/**
 * A volume with the bytes of another disk, built where images arrive for the cache (a task that dies leaves it for a day, or until the copy
 * is discarded), read back, and published by one rename. Where it is to stand on a cached image, its layer is copied as it is: layers name
 * their base relative to their pool, and so by the same words in every one.
 */
export async function copyVolume(
  opened: OpenPool,
  spec: VolumeSpec,
  source: DiskFile,
  backing: Backing | null,
  options: CopyOptions,
): Promise<Copied> {
  using _hold = backing === null ? null : holdImage(opened, backing.imageId);
  const { virtualSize: size } = await info(source, options.signal);
  if (backing !== null) await checkBacking(opened, backing, size, options.signal);
  await sweepFills(opened, [spec.id]);
  await using fill = await openFill(opened, spec.id);
  const folder = join(fill.path, spec.id);
  mkdirSync(folder, 0o755);
  using held = holdFolderSync(folder);
  const target = layerFile(held.path, spec.layerId);
  try {
    const summary =
      backing === null ? await flatten(source, target, size, options) : await copyLayer(source, target, backing, options);
    const { imageId, format } = backing ?? {};
    const meta: VolumeMeta = {
      version: 1,
      ...spec,
      size,
      backing: imageId && format ? { imageId, format } : null,
      createdAt: new Date().toISOString(),
    };
    await createFile(metaPath(held.path), toMeta(meta));
    await syncPath(held.path);
    // the bytes took their time to arrive: the pool is opened anew
    using pool = await openPool(opened.base);
    const place = entryPath(pool, 'volumes', spec.id);
    if (lstatSync(place, { throwIfNoEntry: false })) await discard(pool, place, 'volume', spec.id);
    renameSync(folder, place);
    await syncPath(areaPath(pool, 'volumes'));
    using volume = await holdEntry(place);
    return { size, allocated: volume === undefined ? 0 : await allocated(volume.path), transfer: summary };
  } catch (error) {
    throw poolError(error, `copying a volume to ${opened.root}`);
  }
}

async function flatten(source: DiskFile, target: string, size: number, { signal, progress }: CopyOptions): Promise<null> {
  const tell = (done: number, total: number): void => progress('copy', done, total, 'percent');
  await convert({ source, target, targetFormat: 'qcow2', volume: true, virtualSize: size, signal, progress: tell });
  progress('verify', 0, null);
  if (await compare(source, { path: target, format: 'qcow2', backing: null }, signal)) return null;
  throw new CisternError('DIGEST_MISMATCH', `the copy of ${source.path} shows other bytes than that does`);
}

/** Bytes of the layer, verified part by part; whoever can write to the other pool must not choose what this one stands on. */
async function copyLayer(source: DiskFile, target: string, backing: Backing, options: CopyOptions): Promise<Copied['transfer']> {
  const { signal, streams, stallSeconds, progress } = options;
  const how = { partSize: PART_SIZE, streams, stallSeconds, signal };
  const from = await fileSource(source.held ?? source.path, { codes: CODES });
  const sink = await fileSink({ partial: `${target}.part`, final: target, size: from.size, name: source.path, codes: CODES });
  const { parts, summary } = await transfer({
    ...how,
    source: from,
    sink,
    progress: (done, total) => progress('copy', done, total),
  });
  const back = await fileSource(target, { codes: CODES });
  await transfer({
    ...how,
    source: back,
    sink: nowhere(null),
    parts,
    progress: (done, total) => progress('verify', done, total),
  });
  await inspectLayer(target);
  const base = await baseInHeader(target);
  if (base?.imageId === backing.imageId && base.format === backing.format) return summary;
  throw new CisternError(
    'IMAGE_CORRUPT',
    `${source.path} does not stand on the cached image ${backing.imageId}, as its note says`,
  );
}

/** What stat tells of a volume's layer. */
export async function version(pool: OpenPool, volumeId: string, layerId: string): Promise<string> {
  await using disk = await volumeFile(pool, volumeId, layerId);
  const { ino, size, mtimeNs } = await stat(disk.held!, { bigint: true });
  return `${ino}.${size}.${mtimeNs}`;
}
