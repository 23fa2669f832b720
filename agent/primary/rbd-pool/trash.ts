/** Volumes that were deleted: images of another name, whose note tells when. */
import { infoOf, removeWithSnapshots, usedBytes } from '../../ceph/clones.ts';
import type { Cluster } from '../../ceph/cluster.ts';
import { listImages, renameImage } from '../../ceph/images.ts';
import { removeObjects } from '../../ceph/objects.ts';
import { throwIfAborted } from '../../host/run.ts';
import { each } from './each.ts';
import { idsIn, imageName } from './names.ts';
import { readNote, VolumeNote, writeNote } from './notes.ts';
import { refuseOpen } from './volumes.ts';

/** Moves volumes to the trash; returns those that are there now. VOLUME_IN_USE, and none is moved, where somebody has one open. */
export async function trash(cluster: Cluster, volumeIds: string[]): Promise<string[]> {
  await each(volumeIds, id => refuseOpen(cluster, id));
  const deletedAt = new Date().toISOString();
  const moved = await each(volumeIds, async id => {
    const [from, to] = [imageName('volume', id), imageName('trash', id)];
    if (!(await infoOf(cluster, from))) return (await infoOf(cluster, to)) !== undefined;
    const note = await readNote(cluster, from, VolumeNote).catch(() => undefined);
    if (note) await writeNote(cluster, to, { ...note, deletedAt });
    await renameImage(cluster, from, to);
    await removeObjects(cluster, [from]);
    return true;
  });
  return volumeIds.filter((_, i) => moved[i]);
}

/** Brings volumes back from the trash; returns those that it brought. What stands in its place already is left alone. */
export async function restore(cluster: Cluster, volumeIds: string[]): Promise<string[]> {
  const restored = await each(volumeIds, async id => {
    const [from, to] = [imageName('trash', id), imageName('volume', id)];
    if (!(await infoOf(cluster, from)) || (await infoOf(cluster, to))) return false;
    const note = await readNote(cluster, from, VolumeNote).catch(() => undefined);
    if (note) await writeNote(cluster, to, { ...note, deletedAt: undefined });
    await renameImage(cluster, from, to);
    await removeObjects(cluster, [from]);
    return true;
  });
  return volumeIds.filter((_, i) => restored[i]);
}

export async function discard(cluster: Cluster, volumeIds: string[]): Promise<void> {
  await each(volumeIds, async id => {
    await removeWithSnapshots(cluster, imageName('trash', id));
    await removeObjects(cluster, [imageName('trash', id)]);
  });
}

/** One whose note is lost went there at the beginning of time: it must not stay for ever. */
export async function deletedAt(cluster: Cluster, id: string): Promise<Date> {
  const note = await readNote(cluster, imageName('trash', id), VolumeNote).catch(() => undefined);
  return new Date(note?.deletedAt ?? 0);
}

/** Removes these from the trash for good, and with `before` all that went there earlier; `freed` counts what they took in bytes. */
export async function purge(
  cluster: Cluster,
  volumeIds: string[],
  before: Date | null,
  signal: AbortSignal,
): Promise<{ removed: string[]; freed: number }> {
  const named = new Set(volumeIds);
  const there = idsIn('trash', await listImages(cluster));
  const due = (
    await each(there, async id => (named.has(id) || (before !== null && (await deletedAt(cluster, id)) < before) ? [id] : []))
  ).flat();
  const freed = await each(due, async id => {
    throwIfAborted(signal);
    const name = imageName('trash', id);
    const bytes = (await usedBytes(cluster, name)).get(name) ?? 0;
    await discard(cluster, [id]);
    return bytes;
  });
  return { removed: due, freed: freed.reduce((sum, bytes) => sum + bytes, 0) };
}
