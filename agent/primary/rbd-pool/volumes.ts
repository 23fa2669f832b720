import { CisternError } from '../../../shared/errors.ts';
import {
  clone,
  createImage,
  infoOf,
  removeSnapshot,
  resizeImage,
  snapshotToRead,
  usedBytes,
  watchers,
} from '../../ceph/clones.ts';
import type { Cluster } from '../../ceph/cluster.ts';
import { isCode } from '../../ceph/errors.ts';
import { imageSize, removeImage } from '../../ceph/images.ts';
import { removeObjects } from '../../ceph/objects.ts';
import { startNbd } from '../../ceph/server.ts';
import { throwIfAborted } from '../../host/run.ts';
import type { Backing, OpenDisk, VolumeSpec } from '../driver.ts';
import type { NewVolumes } from '../file-pool/volumes.ts';
import { cached, titleOf } from './cache.ts';
import { each } from './each.ts';
import { BASE, imageName } from './names.ts';
import { type CacheNote, readNote, VolumeNote, writeNote } from './notes.ts';

/**
 * Makes all of the volumes or none. The image comes first and its note then: whose note is missing was cut short in between, and is told by
 * what it stands on. Those that stand already just as asked for are left alone. Returns what one volume takes, in bytes.
 */
export async function createVolumes(
  cluster: Cluster,
  wanted: NewVolumes,
  signal: AbortSignal,
  progress: (done: number) => void,
): Promise<{ allocated: number }> {
  const { volumes, size, backing } = wanted;
  for (const { layerId } of volumes) imageName('volume', layerId);
  const names = volumes.map(({ id }) => imageName('volume', id));
  const virtualSize = backing === null ? undefined : await checkBacking(cluster, backing, size);
  const made: string[] = [];
  let done = 0;
  try {
    await each(volumes, async (spec, i) => {
      throwIfAborted(signal);
      const name = names[i]!;
      if (await makeImage(cluster, name, wanted)) {
        made.push(name);
        if (backing !== null && virtualSize !== size) await resizeImage(cluster, name, size);
      } else if (await standsAlready(cluster, spec, wanted)) return progress(++done);
      await writeNote(cluster, name, noteOf(spec, wanted));
      progress(++done);
    });
  } catch (error) {
    await each(made, async name => {
      await removeImage(cluster, name);
      await removeObjects(cluster, [name]);
    });
    throw error;
  }
  // a new one has no blocks of its own
  return { allocated: made.length > 0 ? 0 : ((await usedBytes(cluster, names[0])).get(names[0]!) ?? 0) };
}

const noteOf = (spec: VolumeSpec, { size, backing }: NewVolumes): VolumeNote => ({
  version: 1,
  ...spec,
  size,
  backing: backing && { imageId: backing.imageId, format: backing.format },
  createdAt: new Date().toISOString(),
});

/** Notes of cached images that clones were made of: to read one takes as long as to make a clone. One that has changed has another digest. */
const seen = new Map<string, CacheNote>();
const SEEN_MOST = 1000;

async function noteOfImage(cluster: Cluster, { imageId, format, digest }: Backing): Promise<CacheNote | undefined> {
  const key = `${imageId} in ${cluster.name}`;
  const known = seen.get(key);
  if (known?.digest === digest && known.format === format) return known;
  const note = await cached(cluster, imageId, format);
  if (seen.size >= SEEN_MOST) seen.clear();
  if (note) seen.set(key, note);
  else seen.delete(key);
  return note;
}

/** Returns the size of the RBD image that clones are made of. Whether that still is there, making one shows. */
async function checkBacking(cluster: Cluster, backing: Backing, size: number): Promise<number> {
  const image = await noteOfImage(cluster, backing);
  const about = `making volumes in ${cluster.name}: the image ${backing.imageId}`;
  if (image === undefined) throw new CisternError('NOT_FOUND', `${about} (${backing.format}) is not in its cache`);
  if (image.digest !== backing.digest)
    throw new CisternError(
      'CACHE_DAMAGED',
      `${about} in its cache has the digest ${image.digest}, but was published with ${backing.digest}`,
    );
  if (size < image.virtualSize)
    throw new CisternError('BAD_REQUEST', `${about} has a disk of ${image.virtualSize} bytes, and ${size} are less`);
  return imageSize(image.content.size);
}

/** false where one of that name is there. */
async function makeImage(cluster: Cluster, name: string, { size, backing }: NewVolumes): Promise<boolean> {
  if (backing === null) return createImage(cluster, name, size);
  const image = imageName('cache', backing.imageId);
  try {
    return await clone(cluster, image, BASE, name);
  } catch (error) {
    if (!isCode(error, 'OBJECT_MISSING')) throw error;
    seen.delete(`${backing.imageId} in ${cluster.name}`);
    throw new CisternError('CACHE_DAMAGED', `the cached image ${titleOf(cluster, image)} is not there, only the note of it`, {
      cause: error,
    });
  }
}

/** Whether the volume stands just as asked for; false where only its note is missing. WRONG_STATE where the id is taken by another. */
async function standsAlready(cluster: Cluster, spec: VolumeSpec, { size, backing }: NewVolumes): Promise<boolean> {
  const name = imageName('volume', spec.id);
  const [note, info] = await Promise.all([readNote(cluster, name, VolumeNote), infoOf(cluster, name)]);
  const parent = backing === null ? undefined : imageName('cache', backing.imageId);
  const same = info?.parent?.image === parent && (note === undefined || (note.layerId === spec.layerId && note.size === size));
  if (!same)
    throw new CisternError(
      'WRONG_STATE',
      `making the volume ${spec.id}: ${titleOf(cluster, name)} is there already and is not what was asked for`,
    );
  if (info?.size !== size) await resizeImage(cluster, name, size); // cut short after it was cloned
  return note !== undefined;
}

/** VOLUME_MISSING where it is not there, or is not the one meant. */
async function find(cluster: Cluster, volumeId: string, layerId: string): Promise<{ name: string; note: VolumeNote }> {
  const name = imageName('volume', volumeId);
  const [note, info] = await Promise.all([readNote(cluster, name, VolumeNote), infoOf(cluster, name)]);
  if (info !== undefined && note?.layerId === layerId) return { name, note: { ...note, size: info.size } };
  throw new CisternError('VOLUME_MISSING', `looking for the volume ${volumeId}: ${titleOf(cluster, name)} is not there`);
}

/** VOLUME_IN_USE where somebody has it open for writing; Ceph knows from where. */
export async function refuseOpen(cluster: Cluster, volumeId: string): Promise<void> {
  const name = imageName('volume', volumeId);
  const open = await watchers(cluster, name);
  if (open.length > 0)
    throw new CisternError(
      'VOLUME_IN_USE',
      `${titleOf(cluster, name)} is open at ${open.map(one => one.split('/')[0]).join(', ')}`,
    );
}

/** The volume as it is now, behind a socket of this host: a snapshot, since Ceph does not keep a VM from beginning to write to it. */
export async function volumeFile(cluster: Cluster, volumeId: string, layerId: string): Promise<OpenDisk> {
  const { name } = await find(cluster, volumeId, layerId);
  await refuseOpen(cluster, volumeId);
  const title = titleOf(cluster, name);
  await using opened = new AsyncDisposableStack();
  const snapshot = opened.adopt(await snapshotToRead(cluster, name), one => removeSnapshot(cluster, name, one));
  const { socket, stop } = await startNbd(cluster, { image: name, snapshot, readOnly: true, name: title });
  opened.defer(stop);
  const owner = opened.move();
  return { path: socket, nbd: true, format: 'raw', [Symbol.asyncDispose]: () => owner.disposeAsync() };
}

/** Grows a volume to `size` bytes; the same size again is no error, less is BAD_REQUEST. VOLUME_IN_USE while somebody has it open. */
export async function resizeVolume(
  cluster: Cluster,
  volumeId: string,
  layerId: string,
  size: number,
): Promise<{ size: number; allocated: number }> {
  const { name, note } = await find(cluster, volumeId, layerId);
  if (size < note.size)
    throw new CisternError(
      'BAD_REQUEST',
      `growing the volume ${volumeId}: it has ${note.size} bytes already, and ${size} is less`,
    );
  await refuseOpen(cluster, volumeId);
  if (size !== note.size) await resizeImage(cluster, name, size);
  await writeNote(cluster, name, { ...note, size });
  return { size, allocated: (await usedBytes(cluster, name)).get(name) ?? 0 };
}
