import { newId } from '../../shared/id.ts';
import type { CommandMessage } from '../../shared/commands/index.ts';
import { CisternError } from '../../shared/errors.ts';
import type { Reader, Trx } from '../db/database.ts';
import { findPrimaryStorage } from '../db/find.ts';
import { anyHost, workerFor } from '../policy/placement.ts';
import type { Services } from '../services.ts';
import { poolRef, storeRef } from '../fleet/refs.ts';
import { settle, type Unsettled } from './unsettled.ts';
import type { Run } from './workflow.ts';

/** Something half made that lies on a storage, seen through one host. */
type Remains = { kind: 'image'; storeId: string; imageId: string } | { kind: 'volumes'; storageId: string; volumeIds: string[] };
/** What an operation had to leave: also a task that may still run on a host that did not answer, and what only that host can tell. */
export type Waste = Remains | Unsettled | { kind: 'task'; taskId: string };

const toCommand = async (services: Services, waste: Remains): Promise<CommandMessage> =>
  waste.kind === 'image'
    ? { kind: 'image.remove', input: { store: await storeRef(services, waste.storeId), imageId: waste.imageId } }
    : {
        kind: 'volume.delete',
        input: { pool: await poolRef(services, waste.storageId), volumeIds: waste.volumeIds, forGood: true },
      };

/** Notes what is to be removed or seen to later. */
export const leaveBehind = (services: Services, hostId: string, waste: Waste): Promise<void> =>
  services.db.write(trx => noteWaste(trx, hostId, waste));

/** The same, as a part of something else. */
export async function noteWaste(trx: Trx, hostId: string, waste: Waste): Promise<void> {
  const row = { id: newId(), host_id: hostId, waste_json: JSON.stringify(waste), at: new Date().toISOString() };
  await trx.insertInto('garbage').values(row).execute();
}

/** Images that an operation had to leave on a backup storage, and that are removed when their host is back. */
export async function doomedImages(db: Reader, storeId: string): Promise<Set<string>> {
  const rows = await db.selectFrom('garbage').select('waste_json').execute();
  const waste = rows.map(row => JSON.parse(row.waste_json) as Waste);
  return new Set(waste.flatMap(one => (one.kind === 'image' && one.storeId === storeId ? one.imageId : [])));
}

/** Volumes that an operation had to leave in a pool, and that are removed when their host is back. */
export async function doomedVolumes(db: Reader, storageId: string): Promise<Set<string>> {
  const rows = await db.selectFrom('garbage').select('waste_json').execute();
  const waste = rows.map(row => JSON.parse(row.waste_json) as Waste);
  return new Set(waste.flatMap(one => (one.kind === 'volumes' && one.storageId === storageId ? one.volumeIds : [])));
}

/** Removes waste, mostly as part of an undo; `label` names the task where one step has several. Where host or storage is away the operation ends all the same, and the waste is swept up later. */
export async function discard(op: Run, hostId: string, waste: Remains, label = 'remove'): Promise<void> {
  const { services } = op;
  try {
    await op.task(
      label,
      hostId,
      waste.kind === 'image' ? 'image.remove' : 'volume.delete',
      async () => (await toCommand(services, waste)).input as never,
    );
  } catch (error) {
    if (op.signal().aborted) throw error;
    services.log.warn(
      { operation: op.id, err: error, waste },
      'what the operation had begun could not be removed now; it will be removed later',
    );
    await leaveBehind(services, hostId, waste);
  }
}

/** Tries to remove what earlier operations had to leave, of all hosts or of one; what fails again stays for the next time. */
export async function sweepGarbage(services: Services, signal: AbortSignal, onlyHost?: string): Promise<void> {
  if (services.recovery.current()) return;
  let query = services.db.read.selectFrom('garbage').selectAll().orderBy('at').limit(1000);
  if (onlyHost !== undefined) query = query.where('host_id', '=', onlyHost);
  /** Hosts on which a task may still be making what is to be removed. */
  const atWork = new Set<string>();
  for (const row of await query.execute()) {
    signal.throwIfAborted();
    if (atWork.has(row.host_id)) continue;
    const waste = JSON.parse(row.waste_json) as Waste;
    try {
      if (waste.kind === 'task') await services.fleet.stop(row.host_id, waste.taskId);
      else if (waste.kind === 'restore' || waste.kind === 'size') await settle(services, row.host_id, waste, signal);
      else await sweepUp(services, row.host_id, waste, signal);
    } catch (error) {
      // its storage or host left cistern, and with it what lay there
      if (!(error instanceof CisternError && error.code === 'NOT_FOUND')) {
        if (waste.kind === 'task') atWork.add(row.host_id);
        services.log.info({ err: error, waste }, 'sweeping up failed; it will be tried again');
        continue;
      }
    }
    await services.db.write(trx => trx.deleteFrom('garbage').where('id', '=', row.id).execute());
  }
}

/** Through the host that left it, or through another one where that has left cistern and others see the storage as well. */
async function sweepUp(services: Services, hostId: string, waste: Remains, signal: AbortSignal): Promise<void> {
  const { db, fleet } = services;
  const host = await db.read.selectFrom('hosts').select('id').where('id', '=', hostId).executeTakeFirst();
  const through =
    host?.id ??
    (waste.kind === 'image'
      ? (await anyHost(db.read, fleet)).id
      : await workerFor(db.read, fleet, { storageId: waste.storageId, hostId: await partOf(db.read, waste.storageId, hostId) }));
  await fleet.run(through, newId(), (await toCommand(services, waste)) as never, { signal, patienceSeconds: 0 });
}

/** The part of a storage that a host had: '' where all hosts see the same. */
const partOf = async (db: Reader, storageId: string, hostId: string): Promise<string> =>
  (await findPrimaryStorage(db, storageId)).shared === 1 ? '' : hostId;
