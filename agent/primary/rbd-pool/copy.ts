import { createImage, infoOf, usedBytes } from '../../ceph/clones.ts';
import type { Cluster } from '../../ceph/cluster.ts';
import { renameImage } from '../../ceph/images.ts';
import { startNbd } from '../../ceph/server.ts';
import { CisternError } from '../../../shared/errors.ts';
import { compare, convertInto, info } from '../../host/qemu-img.ts';
import type { Backing, Copied, CopyOptions, DiskFile, VolumeSpec } from '../driver.ts';
import { removeFill, titleOf } from './cache.ts';
import { imageName } from './names.ts';
import { readNote, VolumeNote, writeNote } from './notes.ts';

/** A volume that stands alone with the bytes of another disk: it has its name once it was read back, and its note after that. */
export async function copyVolume(
  cluster: Cluster,
  spec: VolumeSpec,
  source: DiskFile,
  backing: Backing | null,
  { signal, progress }: CopyOptions,
): Promise<Copied> {
  if (backing !== null) throw new CisternError('BAD_REQUEST', 'a copy in a pool of RBD images stands alone');
  const [fill, name] = [imageName('fill', spec.id), imageName('volume', spec.id)];
  const { virtualSize: size } = await info(source, signal);
  await removeFill(cluster, spec.id);
  await createImage(cluster, fill, size);
  try {
    const title = titleOf(cluster, name);
    const open = (readOnly: boolean) => startNbd(cluster, { image: fill, readOnly, name: title });
    const disk = (socket: string) => ({ path: socket, nbd: true, format: 'raw' }) as const;
    const writing = await open(false);
    try {
      await convertInto(source, disk(writing.socket), {
        virtualSize: size,
        signal,
        progress: (done, all) => progress('copy', done, all, 'percent'),
      });
    } finally {
      await writing.stop();
    }
    progress('verify', 0, null);
    const reading = await open(true);
    try {
      if (!(await compare(source, disk(reading.socket), signal)))
        throw new CisternError('DIGEST_MISMATCH', `the copy ${title} of ${source.path} shows other bytes than that does`);
    } finally {
      await reading.stop();
    }
    await renameImage(cluster, fill, name);
  } catch (error) {
    await removeFill(cluster, spec.id).catch(() => undefined); // the first failure is what counts; the next attempt removes it too
    throw error;
  }
  await writeNote(cluster, name, {
    version: 1,
    ...spec,
    size,
    backing: null,
    createdAt: new Date().toISOString(),
  } satisfies VolumeNote);
  return { size, allocated: (await usedBytes(cluster, name)).get(name) ?? 0, transfer: null };
}

/** Ceph notes at most once a minute that an image was written to; whoever has it open is seen at once. */
export async function version(cluster: Cluster, volumeId: string, layerId: string): Promise<string> {
  const name = imageName('volume', volumeId);
  const [note, found] = [await readNote(cluster, name, VolumeNote), await infoOf(cluster, name)];
  if (found !== undefined && note?.layerId === layerId) return `${found.size}.${found.modify_timestamp ?? ''}`;
  throw new CisternError('VOLUME_MISSING', `looking for the volume ${volumeId}: ${titleOf(cluster, name)} is not there`);
}
