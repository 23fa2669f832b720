import { CisternError } from '../../../shared/errors.ts';
import type { CommandOutput } from '../../../shared/commands/index.ts';
import type { FoundVolume } from '../../../shared/commands/pool.ts';
import type { Capacity } from '../../../shared/model.ts';
import { capacity as ofCluster } from '../../ceph/capacity.ts';
import { infoOf, usedBytes } from '../../ceph/clones.ts';
import type { Cluster } from '../../ceph/cluster.ts';
import { noted } from '../file-pool/scan.ts';
import { listObjects } from '../../ceph/objects.ts';
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
  const notes = new Set(await listObjects(cluster));
  // an image that has its name in the cache and no note yet is just arriving, or was cut short then
  const names = [...used.keys()].filter(name => notes.has(name) || idsIn('cache', [name]).length === 0);
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
      const name = imageName(area, id);
      const [note, info] = await Promise.all([readNote(cluster, name, VolumeNote).catch(() => undefined), infoOf(cluster, name)]);
      const parent = note?.backing ? imageName('cache', note.backing.imageId) : undefined;
      const problem =
        note === undefined
          ? 'its note is missing or damaged'
          : info?.parent?.image === parent
            ? null
            : `it stands on ${info?.parent?.image ?? 'nothing'}, and by its note on ${parent ?? 'nothing'}`;
      return { ...noted(id, note), allocated, size: info?.size ?? note?.size ?? null, problem };
    });
  return {
    volumes: await volumes('volume'),
    trash: await volumes('trash'),
    cache: of('cache').map(({ id, allocated }) => ({ imageId: id, allocated })),
  };
}
