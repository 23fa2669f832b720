import type { FoundVolume } from '../../shared/commands/pool.ts';
import type { Reader, Trx } from '../db/database.ts';
import type { Row } from '../db/schema.ts';
import { doomedVolumes } from '../operations/garbage.ts';
import type { Services } from '../services.ts';
import { type Difference, SETTLED } from './difference.ts';
import type { FoundPool } from './look.ts';
import { addEntry, adoptVolume, forgetEntry, setVolume, trashVolume } from './mend-pool.ts';
import { cacheLock } from './cache-entry.ts';

/** How a difference ends: by rows that follow what lies there. */
export interface Mend {
  by: 'adopt' | 'repair';
  /** That nobody else works on it. */
  lock: string;
  /** What makes it the same difference in another look. */
  key: string;
  apply(trx: Trx, services: Services): Promise<Partial<Difference>>;
}
export type Found = Difference & { mend?: Mend };

/** What lies in a pool and is not as its rows say, or is wrong in itself. */
export async function comparePool(trx: Reader, pool: FoundPool): Promise<Found[]> {
  const at = { primary_storage_id: pool.storageId, host_id: pool.hostId };
  const here = trx.selectFrom('volumes').selectAll().where('primary_storage_id', '=', pool.storageId);
  const rows = await here.where('host_id', '=', pool.hostId).execute();
  const known = new Map(rows.map(row => [row.id, row]));
  const doomed = await doomedVolumes(trx, pool.storageId);
  const images = new Set((await trx.selectFrom('images').select('id').execute()).map(image => image.id));
  const others = await trx
    .selectFrom('volumes')
    .select('id')
    .where('primary_storage_id', '<>', pool.storageId)
    .where('status', 'in', ['creating', 'ready', 'deleting'])
    .execute();
  const elsewhere = new Set(others.map(row => row.id));
  const lies = new Set([...pool.volumes, ...pool.trash].map(found => found.id));
  const on = pool.hostId === '' ? {} : { hostId: pool.hostId };
  const differences = [
    ...pool.volumes.flatMap(found => compareVolume(found, known.get(found.id), { ...at, images, doomed, elsewhere })),
    ...pool.trash.flatMap(found => compareTrash(found, known.get(found.id), { ...at, images, doomed, elsewhere })),
    ...rows.filter(row => SETTLED.includes(row.status) && !lies.has(row.id)).map(missingVolume),
    ...(await compareCache(trx, pool, images)),
  ];
  return differences.map(({ mend, ...difference }) => ({ ...difference, ...on, ...(mend && { mend }) }));
}

interface Context {
  primary_storage_id: string;
  host_id: string;
  images: Set<string>;
  doomed: Set<string>;
  /** Volumes of other primary storages. */
  elsewhere: Set<string>;
}

const mend = (
  difference: Difference,
  by: Mend['by'],
  apply: (trx: Trx, services: Services) => Promise<Partial<Difference> | void>,
  lock = `volume/${difference.id}`,
): Found => {
  const { what, kind, id } = difference;
  const done = { what: by === 'adopt' ? ('adopted' as const) : ('repaired' as const) };
  const all = async (trx: Trx, services: Services) => ({ ...done, ...(await apply(trx, services)) });
  return { ...difference, mend: { by, lock, key: `${what} ${kind} ${id} ${lock}`, apply: all } };
};

function compareVolume(found: FoundVolume, row: Row<'volumes'> | undefined, context: Context): Found[] {
  const { id, problem } = found;
  if (!row) return [orphan('volume', found, context)];
  const about = { kind: 'volume' as const, id, name: row.name, size: found.size, createdAt: row.created_at };
  const all: Found[] = [];
  if (problem !== null && SETTLED.includes(row.status)) all.push({ what: 'damaged', ...about, note: problem });
  const size = found.size ?? row.size;
  const ready = (note: string): Found =>
    mend({ what: 'different', ...about, note }, 'repair', trx => setVolume(trx, id, { status: 'ready', size, deleted_at: null }));
  if (row.status === 'missing') all.push(ready('it was missing, and lies there'));
  if (row.status === 'deleted') all.push(ready('it was deleted, and lies among the volumes'));
  if (row.status === 'ready' && size !== row.size) all.push(ready(`it has ${size} bytes, and ${row.size} are known`));
  return all;
}

function compareTrash(found: FoundVolume, row: Row<'volumes'> | undefined, context: Context): Found[] {
  if (!row) return [orphan('volume in the trash', found, context)];
  if (row.status !== 'ready' && row.status !== 'missing') return [];
  const { id, size } = found;
  const note = 'it lies in the trash, and was not deleted';
  const difference = { what: 'different', kind: 'volume', id, name: row.name, size, createdAt: row.created_at, note } as const;
  return [mend(difference, 'repair', trx => trashVolume(trx, id))];
}

function orphan(kind: 'volume' | 'volume in the trash', found: FoundVolume, context: Context): Found {
  const { id, name, size, createdAt, imageId, problem } = found;
  const about = { what: 'orphan', kind, id, ...(name !== null && { name }), size, createdAt } as const;
  if (context.doomed.has(id)) return { ...about, note: 'is to be removed' };
  if (context.elsewhere.has(id))
    return { ...about, note: 'a volume of this id is on another primary storage: it is just moving, or was moved' };
  if (problem !== null) return { ...about, note: problem };
  if (imageId !== null && !context.images.has(imageId))
    return { ...about, note: `it stands on image ${imageId}, which is not known: adopt that one first` };
  return mend(about, 'adopt', (trx, services) => adoptVolume(trx, services, kind, found, context));
}

function missingVolume(row: Row<'volumes'>): Found {
  const { id, name, size, created_at: createdAt } = row;
  const kind = row.status === 'deleted' ? 'volume in the trash' : 'volume';
  const difference = { what: 'missing', kind, id, name, size, createdAt } as const;
  if (row.status === 'missing') return difference;
  return mend(difference, 'repair', async trx => {
    if (row.status === 'ready') await setVolume(trx, id, { status: 'missing' });
    else await trx.deleteFrom('volumes').where('id', '=', id).execute();
    return { note: row.status === 'ready' ? 'it is marked as missing' : 'it is forgotten' };
  });
}

async function compareCache(trx: Reader, pool: FoundPool, images: Set<string>): Promise<Found[]> {
  const here = trx.selectFrom('cache_entries').select(['image_id', 'status', 'size']);
  const entries = await here.where('primary_storage_id', '=', pool.storageId).where('host_id', '=', pool.hostId).execute();
  const known = new Set(entries.map(entry => entry.image_id));
  const there = new Set(pool.cache.map(found => found.imageId));
  const orphans = pool.cache
    .filter(found => !known.has(found.imageId))
    .map(({ imageId: id, allocated: size }): Found => {
      const about = { what: 'orphan', kind: 'cached image', id, size } as const;
      if (!images.has(id)) return about;
      return mend(about, 'adopt', trx => addEntry(trx, pool, id, size), cacheLock(pool, id));
    });
  const missing = entries
    .filter(entry => entry.status === 'ready' && !there.has(entry.image_id))
    .map(({ image_id: id, size }) =>
      mend({ what: 'missing', kind: 'cached image', id, size }, 'repair', trx => forgetEntry(trx, pool, id), cacheLock(pool, id)),
    );
  return [...orphans, ...missing];
}
