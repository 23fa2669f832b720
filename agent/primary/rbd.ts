import type { PrimaryDriver } from './driver.ts';
import { CephConfig } from '../ceph/config.ts';
import { openCluster, type Cluster } from '../ceph/cluster.ts';
import { orAborted } from '../worker/or-aborted.ts';
import { openRbdPool } from './rbd-pool.ts';
import { openIdentity } from './rbd-pool/identity.ts';
import { inPool } from './rbd-pool/errors.ts';
import { OBJECTS, volumePath } from './rbd-pool/names.ts';

/** A pool of a Ceph cluster, or a namespace of one. Volumes are raw RBD images; linked clones are clones of the cached image's snapshot. */
export const rbd: PrimaryDriver<CephConfig> = {
  type: 'rbd',
  title: 'Pool of a Ceph cluster (RBD)',
  shared: true,
  config: CephConfig,
  volumes: { format: 'raw', path: volumePath('{volume}') },
  async connect({ id, config }, { initialize, signal }) {
    signal.throwIfAborted();
    const cluster = await clusterOf(id, config);
    const initialized = await orAborted(
      inPool(() => openIdentity(cluster, id, initialize)),
      signal,
    );
    return openRbdPool(cluster, initialized);
  },
  async disconnect({ id }) {
    await clusters.get(id)?.cluster.close();
    clusters.delete(id);
  },
};

/** Those that this process has the keys of, by pool: its configuration is written to files once. */
const clusters = new Map<string, { config: string; cluster: Cluster }>();

async function clusterOf(id: string, config: CephConfig): Promise<Cluster> {
  const told = JSON.stringify(config);
  const known = clusters.get(id);
  if (known?.config === told) return known.cluster;
  const cluster = await openCluster(config, OBJECTS);
  clusters.set(id, { config: told, cluster });
  await known?.cluster.close();
  return cluster;
}
