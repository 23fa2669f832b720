import { newId } from '../../shared/id.ts';
import type { CommandMessage } from '../../shared/commands/index.ts';
import { CisternError } from '../../shared/errors.ts';
import type { Services } from '../services.ts';
import { poolRef, storeRef } from '../fleet/refs.ts';
import type { Run } from './workflow.ts';

/** Something half made that lies on a storage, seen through one host. */
export type Waste =
  { kind: 'image'; storeId: string; imageId: string } | { kind: 'volumes'; storageId: string; volumeIds: string[] };

const toCommand = async (services: Services, waste: Waste): Promise<CommandMessage> =>
  waste.kind === 'image'
    ? { kind: 'image.remove', input: { store: await storeRef(services, waste.storeId), imageId: waste.imageId } }
    : { kind: 'volume.delete', input: { pool: await poolRef(services, waste.storageId), volumeIds: waste.volumeIds } };

/** Removes waste as part of an undo. Where host or storage is away the operation ends all the same, and the waste is swept up later. */
export async function discard(op: Run, hostId: string, waste: Waste): Promise<void> {
  const { services } = op;
  try {
    await op.task(
      'remove',
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
    await services.db.write(trx =>
      trx
        .insertInto('garbage')
        .values({ id: newId(), host_id: hostId, waste_json: JSON.stringify(waste), at: new Date().toISOString() })
        .execute(),
    );
  }
}

/** Tries to remove what earlier operations had to leave; what fails again stays for the next time. */
export async function sweepGarbage(services: Services, signal: AbortSignal): Promise<void> {
  const rows = await services.db.read.selectFrom('garbage').selectAll().orderBy('at').limit(1000).execute();
  for (const row of rows) {
    signal.throwIfAborted();
    const waste = JSON.parse(row.waste_json) as Waste;
    try {
      await services.fleet.run(row.host_id, newId(), (await toCommand(services, waste)) as never, { signal, patienceSeconds: 0 });
    } catch (error) {
      // its storage or host left cistern, and with it what lay there
      if (!(error instanceof CisternError && error.code === 'NOT_FOUND')) {
        services.log.info({ err: error, waste }, 'sweeping up failed; it will be tried again');
        continue;
      }
    }
    await services.db.write(trx => trx.deleteFrom('garbage').where('id', '=', row.id).execute());
  }
}
