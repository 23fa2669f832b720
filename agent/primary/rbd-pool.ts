import { CisternError } from '../../shared/errors.ts';
import type { Cluster } from '../ceph/cluster.ts';
import { listImages } from '../ceph/images.ts';
import { listObjects, removeObjects } from '../ceph/objects.ts';
import type { Pool } from './driver.ts';
import { cached, evict, removeFill, titleOf, verifyImage } from './rbd-pool/cache.ts';
import { cacheSink } from './rbd-pool/cache-sink.ts';
import { copyVolume, version } from './rbd-pool/copy.ts';
import { each } from './rbd-pool/each.ts';
import { inPool } from './rbd-pool/errors.ts';
import { disown } from './rbd-pool/identity.ts';
import { idsIn, imageName } from './rbd-pool/names.ts';
import { discard, purge, restore, trash } from './rbd-pool/trash.ts';
import { capacity, scan, usage } from './rbd-pool/usage.ts';
import { createVolumes, resizeVolume, volumeFile } from './rbd-pool/volumes.ts';

/** A pool whose volumes are RBD images, and linked clones those of a protected snapshot. */
export const openRbdPool = (cluster: Cluster, initialized: boolean): Pool => ({
  initialized,
  capacity: () => inPool(() => capacity(cluster)),
  usage: () => inPool(() => usage(cluster)),
  scan: () => inPool(() => scan(cluster)),
  cached: (imageId, format) => inPool(() => cached(cluster, imageId, format)),
  verifyImage: (imageId, format, verification) => inPool(() => verifyImage(cluster, imageId, format, verification)),
  cacheSink: image => inPool(() => cacheSink(cluster, image)),
  cacheName: imageId => titleOf(cluster, imageName('cache', imageId)),
  evict: imageId => inPool(() => evict(cluster, imageId)),
  createVolumes: (_taskId, volumes, size, backing, signal, progress) =>
    inPool(() => createVolumes(cluster, { volumes, size, backing }, signal, progress)),
  volumeFile: (volumeId, layerId) => inPool(() => volumeFile(cluster, volumeId, layerId)),
  // a clone shows the blocks of a snapshot, which nobody writes to
  verifyBase: () => Promise.resolve(),
  resizeVolume: (volumeId, layerId, size) => inPool(() => resizeVolume(cluster, volumeId, layerId, size)),
  version: (volumeId, layerId) => inPool(() => version(cluster, volumeId, layerId)),
  copyVolume: (volume, source, backing, options) => inPool(() => copyVolume(cluster, volume, source, backing, options)),
  trash: volumeIds => inPool(() => trash(cluster, volumeIds)),
  restore: volumeIds => inPool(() => restore(cluster, volumeIds)),
  discard: volumeIds =>
    inPool(async () => {
      await discard(cluster, volumeIds);
      await each(volumeIds, id => removeFill(cluster, id));
    }),
  purge: (volumeIds, before, signal) => inPool(() => purge(cluster, volumeIds, before, signal)),
  // work is done under its final names, and taken back or gone on with by who asked for it
  sweep: () => Promise.resolve(),
  forget: () => inPool(() => forget(cluster)),
});

/** Stops being a pool. IN_USE where volumes are left; cached images and the trash go. */
async function forget(cluster: Cluster): Promise<void> {
  const names = await listImages(cluster);
  const volumes = idsIn('volume', names);
  if (volumes.length > 0)
    throw new CisternError(
      'IN_USE',
      `giving up the pool ${cluster.name}: ${volumes.length} volumes are left in it, such as ${volumes[0]}`,
    );
  await discard(cluster, idsIn('trash', names));
  for (const id of idsIn('cache', names)) await evict(cluster, id);
  for (const id of idsIn('fill', names)) await removeFill(cluster, id);
  await removeObjects(cluster, (await listObjects(cluster)).filter(name => name !== 'pool.json')); // prettier-ignore
  await disown(cluster);
}
