import { CisternError } from '../../../shared/errors.ts';
import type { CommandOutput } from '../../../shared/commands/index.ts';
import type { FoundVolume } from '../../../shared/commands/pool.ts';
import type { Capacity } from '../../../shared/model.ts';
import { capacity as ofCluster } from '../../ceph/capacity.ts';
import { usedBytes } from '../../ceph/clones.ts';
import type { Cluster } from '../../ceph/cluster.ts';
import { each } from './each.ts';
import { type Area, idsIn, imageName } from './names.ts';
import { readNote, VolumeNote } from './notes.ts';
import { deletedAt } from './trash.ts';

/** POOL_CONFIG where the cluster does not tell: nothing could be reserved on it. */
export async function capacity(cluster: Cluster): Promise<Capacity> {
  const found = await ofCluster(cluster);
  if (found !== null) return found;
  throw new CisternError('POOL_CONFIG', `measuring ${cluster.name}: the cluster does not tell how full the pool is`, {
    action: "Give the Ceph user the right to ask (mgr 'profile rbd'), and see that a manager runs (ceph status).",
  });
}

const entries = async (cluster: Cluster) => {
  const used = await usedBytes(cluster);
  const names = [...used.keys()];
  return (area: Area) => idsIn(area, names).map(id => ({ id, allocated: used.get(imageName(area, id))! }));
};

/** Free space, and what each cached image, volume and trash entry takes. */
export async function usage(cluster: Cluster): Promise<CommandOutput<'pool.usage'>> {
  const [room, of] = await Promise.all([capacity(cluster), entries(cluster)]);
  return {
    capacity: room,
    cache: of('cache').map(({ id, allocated }) => ({ imageId: id, allocated })),
    volumes: of('volume'),
    trash: await each(of('trash'), async entry => ({ ...entry, deletedAt: (await deletedAt(cluster, entry.id)).toISOString() })),
  };
}

/** Everything in the pool with what its notes tell; a damaged one tells nothing, and stops nothing. */
export async function scan(cluster: Cluster): Promise<CommandOutput<'pool.scan'>> {
  const of = await entries(cluster);
  const volumes = (area: 'volume' | 'trash'): Promise<FoundVolume[]> =>
    each(of(area), async ({ id, allocated }) => {
      const note = await readNote(cluster, imageName(area, id), VolumeNote).catch(() => undefined);
      const { size = null, backing = null, createdAt = null } = note ?? {};
      return { id, size, allocated, imageId: backing?.imageId ?? null, createdAt };
    });
  return {
    volumes: await volumes('volume'),
    trash: await volumes('trash'),
    cache: of('cache').map(({ id, allocated }) => ({ imageId: id, allocated })),
  };
}
