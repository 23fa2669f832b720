import type { CommandOutput } from '../../shared/commands/index.ts';
import { CisternError } from '../../shared/errors.ts';
import { findHost, findPrimaryStorage } from '../db/find.ts';
import { poolRef, storeRef } from '../fleet/refs.ts';
import type { Run } from '../operations/workflow.ts';
import type { PoolKey } from '../policy/capacity.ts';
import { anyHost, workers } from '../policy/placement.ts';

export type FoundPool = PoolKey & CommandOutput<'pool.scan'>;
export type FoundStore = { storeId: string } & CommandOutput<'store.scan'>;

/** What lies in each part of a primary storage that a connected host can look at. */
export async function lookAtPools(op: Run, storageId: string, { check = false, again = '' } = {}): Promise<FoundPool[]> {
  const { db, fleet } = op.services;
  const { shared, name } = await findPrimaryStorage(db.read, storageId);
  const hosts = await op.step(`find hosts of ${name}${again}`, () => workers(db.read, fleet, storageId));
  const found: FoundPool[] = [];
  for (const hostId of shared ? hosts.slice(0, 1) : hosts) {
    const label = `look at ${name} on ${(await findHost(db.read, hostId)).name}${again}`;
    const out = await op.task(label, hostId, 'pool.scan', async () => ({
      pool: await poolRef(op.services, storageId),
      check,
    }));
    found.push({ storageId, hostId: shared ? '' : hostId, ...out });
  }
  if (found.length === 0) throw new CisternError('NO_HOST', `no connected and enabled host sees primary storage ${name}`);
  return found;
}

/** What lies on a backup storage. */
export async function lookAtStore(op: Run, storeId: string, again = ''): Promise<FoundStore> {
  const { db, fleet } = op.services;
  const hostId = await op.step(`find a host for ${storeId}${again}`, async () => (await anyHost(db.read, fleet)).id);
  const out = await op.task(`look at ${storeId}${again}`, hostId, 'store.scan', async () => ({
    store: await storeRef(op.services, storeId),
  }));
  return { storeId, ...out };
}
