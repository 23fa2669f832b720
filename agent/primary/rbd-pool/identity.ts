import { CisternError } from '../../../shared/errors.ts';
import type { Cluster } from '../../ceph/cluster.ts';
import { listImages } from '../../ceph/images.ts';
import { createObject, listObjects, removeObjects } from '../../ceph/objects.ts';
import { takeAsIs } from '../file-pool/identity.ts';
import { PoolNote, readNote, writeNote } from './notes.ts';

/** Says which pool this is, so that two controllers do not take one pool for their own. */
const NOTE = 'pool.json';

/** POOL_IDENTITY unless this is the pool `id`. With `initialize` an empty place becomes it; true where it has just done so. */
export async function openIdentity(cluster: Cluster, id: string, initialize: boolean): Promise<boolean> {
  const claimed = initialize && (await claim(cluster, id));
  const found = await readNote(cluster, NOTE, PoolNote).catch((error: unknown) => {
    if (!(error instanceof CisternError && error.code === 'IO_ERROR')) throw error;
    throw new CisternError('POOL_IDENTITY', `${cluster.name} should be the pool ${id}, but ${error.message}`, { cause: error });
  });
  if (found === undefined)
    throw new CisternError('POOL_IDENTITY', `${cluster.name} should be the pool ${id}, but it has no pool.json`);
  if (found.id !== id)
    throw new CisternError('POOL_IDENTITY', `${cluster.name} should be the pool ${id}, but its pool.json says ${found.id}`, {
      action: takeAsIs(found.id),
    });
  return claimed;
}

/** Of several hosts that try at once one makes the object. One that was cut short before it said whose the pool is left it empty. */
async function claim(cluster: Cluster, id: string): Promise<boolean> {
  const there = await readNote(cluster, NOTE, PoolNote).catch((error: unknown) => {
    if (error instanceof CisternError && error.code === 'IO_ERROR') return null;
    throw error;
  });
  if (there) return false;
  const [images, objects] = await Promise.all([listImages(cluster), listObjects(cluster)]);
  const others = [...images, ...objects.filter(name => name !== NOTE)];
  if (others.length > 0)
    throw new CisternError(
      'POOL_IDENTITY',
      `${cluster.name} cannot become a pool: it has no pool.json but is not empty (${others.slice(0, 3).join(', ')}${others.length > 3 ? ', …' : ''})`,
      { action: 'Give an empty Ceph pool, or an RBD namespace of its own: rbd namespace create POOL/NAME.' },
    );
  if (!(await createObject(cluster, NOTE)) && there === undefined) return false;
  await writeNote(cluster, NOTE, { version: 1, id, type: 'rbd', createdAt: new Date().toISOString() });
  return true;
}

export const disown = (cluster: Cluster): Promise<void> => removeObjects(cluster, [NOTE]);
