import { setTimeout as delay } from 'node:timers/promises';
import { CisternError } from '../../shared/errors.ts';
import type { ResourceRef } from '../../shared/model.ts';
import type { Reader } from '../db/database.ts';
import { findHost, findPrimaryStorage } from '../db/find.ts';
import type { Row } from '../db/schema.ts';
import { markPool } from '../fleet/connect.ts';
import { poolRef } from '../fleet/refs.ts';
import { claimLock } from '../operations/claims.ts';
import type { Run, Workflow } from '../operations/workflow.ts';
import { workers } from '../policy/placement.ts';
import type { HostRef } from './primary-storage-hosts.ts';

const LOOK_AGAIN_MS = 500;

interface Request {
  ref: string;
  /** Cancels what runs instead of waiting for it. */
  cancel: boolean;
  deadlineSeconds: number;
}

interface Plan {
  storageId: string;
  name: string;
  hosts: HostRef[];
  oldState: Row<'primary_storages'>['state'];
  cancel: boolean;
  deadlineSeconds: number;
}

/** Puts a primary storage into maintenance: no new work, what runs ends or is cancelled, and the hosts unmount it. It stays so until it is enabled. */
export const maintainPrimaryStorage: Workflow<Request, Plan> = {
  kind: 'primary-storage.maintain',
  async accept(trx, { ref, cancel, deadlineSeconds }, operationId, services) {
    const storage = await findPrimaryStorage(trx, ref);
    await claimLock(trx, operationId, `primary-storage/${storage.id}`, `primary storage ${storage.name}`);
    const hosts: HostRef[] = [];
    for (const id of await workers(trx, services.fleet, storage.id)) hosts.push({ id, name: (await findHost(trx, id)).name });
    await trx.updateTable('primary_storages').set({ state: 'maintenance' }).where('id', '=', storage.id).execute();
    return {
      plan: { storageId: storage.id, name: storage.name, hosts, oldState: storage.state, cancel, deadlineSeconds },
      resources: [{ kind: 'primary-storage', id: storage.id }],
    };
  },
  async run(op, plan) {
    const { services } = op;
    op.undo('bring it back to what it was', async () => {
      const state = plan.oldState;
      await services.db.write(trx =>
        trx.updateTable('primary_storages').set({ state }).where('id', '=', plan.storageId).execute(),
      );
    });
    const cancelled = plan.cancel ? await op.step('cancel what runs', () => cancelAll(op, plan)) : [];
    await op.step('wait for what runs', () => drain(op, plan));
    for (const { id: hostId, name } of plan.hosts) {
      const input = async () => ({ pool: await poolRef(services, plan.storageId), forget: false });
      await op.task(`disconnect ${name}`, hostId, 'pool.disconnect', input);
      await op.tx(`mark ${name} as disconnected`, trx =>
        markPool(trx, services, plan.storageId, hostId, null, 'the storage is in maintenance'),
      );
    }
    const { storageId, oldState } = plan;
    op.finish({ primaryStorageId: storageId, disconnected: plan.hosts.map(({ id }) => id), cancelled }, async trx => {
      if (oldState !== 'maintenance')
        await services.events.append(
          trx,
          'primary-storage.maintenance',
          { kind: 'primary-storage', id: storageId },
          `primary storage ${plan.name} is now in maintenance`,
        );
    });
  },
};

async function cancelAll(op: Run, plan: Plan): Promise<string[]> {
  const ids = await workOn(op.services.db.read, plan.storageId, op.id);
  for (const id of ids)
    await op.services.cancel(id, { name: `maintenance of ${plan.name}`, role: 'admin' }).catch((error: unknown) => {
      // it has ended meanwhile
      if (!(error instanceof CisternError && error.code === 'WRONG_STATE')) throw error;
    });
  return ids;
}

async function drain(op: Run, { storageId, name, deadlineSeconds }: Plan): Promise<void> {
  const end = performance.now() + deadlineSeconds * 1000;
  for (;;) {
    const left = await workOn(op.services.db.read, storageId, op.id);
    if (left.length === 0) return;
    if (performance.now() > end)
      throw new CisternError(
        'TIMEOUT',
        `waiting for work on primary storage ${name}: after ${deadlineSeconds} s these operations still run: ${left.slice(0, 3).join(', ')}${left.length > 3 ? ', ...' : ''}`,
        { action: 'Wait for them, or cancel them (--cancel), and put the storage into maintenance again.' },
      );
    await delay(LOOK_AGAIN_MS, undefined, { signal: op.signal() });
  }
}

/** Operations under way that have to do with a primary storage or its volumes, but for `besides`. */
export async function workOn(db: Reader, storageId: string, besides: string): Promise<string[]> {
  const rows = await db
    .selectFrom('operations')
    .select(['id', 'resources_json'])
    .where('finished_at', 'is', null)
    .where('id', '<>', besides)
    .execute();
  const busy: string[] = [];
  for (const { id, resources_json } of rows) {
    const resources = JSON.parse(resources_json) as ResourceRef[];
    const volumes = resources.flatMap(one => (one.kind === 'volume' ? one.id : []));
    const here = await db
      .selectFrom('volumes')
      .select('id')
      .where('id', 'in', volumes)
      .where('primary_storage_id', '=', storageId)
      .limit(1)
      .executeTakeFirst();
    if (here || resources.some(one => one.id === storageId)) busy.push(id);
  }
  return busy;
}
