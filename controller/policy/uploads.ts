import type { FoundImage } from '../../shared/commands/store.ts';
import { CisternError } from '../../shared/errors.ts';
import { newId, timeOf } from '../../shared/id.ts';
import { storeRef } from '../fleet/refs.ts';
import type { Services } from '../services.ts';
import { anyHost } from './placement.ts';

/** An upload under an id that is younger may be another controller's, which shares the storage and is at it. */
const YOUNG_MS = 24 * 3600_000;

/** Unfinished uploads that the last sweep of each backup storage has seen, by the storage's id. */
type Sightings = Map<string, Set<string>>;

/** The job that removes what uploads cut short left on backup storages and nobody will take up again, once two sweeps have seen it. */
export function createUploadSweep(): (services: Services, signal: AbortSignal) => Promise<void> {
  const seen: Sightings = new Map();
  return async (services, signal) => {
    const stores = await services.db.read
      .selectFrom('backup_storages')
      .select(['id', 'name'])
      .where('state', '=', 'enabled')
      .where('status', '=', 'connected')
      .execute();
    for (const store of stores) {
      signal.throwIfAborted();
      try {
        await sweepStore(services, store, seen, signal);
      } catch (error) {
        if (signal.aborted) throw error;
        services.log.warn({ err: error, store: store.name }, 'unfinished uploads on a backup storage could not be swept up');
      }
    }
  };
}

async function sweepStore(
  services: Services,
  store: { id: string; name: string },
  seen: Sightings,
  signal: AbortSignal,
): Promise<void> {
  const { db, fleet, events, log } = services;
  const { id: hostId } = await anyHost(db.read, fleet);
  const { images } = await fleet.run(
    hostId,
    newId(),
    { kind: 'store.scan', input: { store: await storeRef(services, store.id) } },
    { signal, patienceSeconds: 0 },
  );
  const before = seen.get(store.id) ?? new Set();
  const left = await forgotten(services, images);
  seen.set(store.id, new Set(left));
  for (const imageId of left.filter(id => before.has(id))) {
    signal.throwIfAborted();
    if (services.recovery.current()) throw new CisternError('CONTROLLER_OUTDATED', services.recovery.current()!.reason);
    const input = { store: await storeRef(services, store.id), imageId };
    await fleet.run(hostId, newId(), { kind: 'image.remove', input }, { signal, patienceSeconds: 0 });
    const words = `an unfinished upload was removed from ${store.name}: image ${imageId}, which nobody knows`;
    log.info({ store: store.name, imageId }, 'an unfinished upload was removed');
    await db.write(trx => events.append(trx, 'backup-storage.swept', { kind: 'backup-storage', id: store.id }, words));
  }
}

/** Images without a manifest, old enough, that no row tells of: while an operation is at an image, there is one. */
async function forgotten({ db }: Services, images: FoundImage[]): Promise<string[]> {
  const old = images.filter(image => image.unfinished && timeOf(image.id) < Date.now() - YOUNG_MS).map(image => image.id);
  if (old.length === 0) return [];
  const rows = await db.read.selectFrom('images').select('id').where('status', '<>', 'deleted').execute();
  const known = new Set(rows.map(row => row.id));
  return old.filter(id => !known.has(id));
}
