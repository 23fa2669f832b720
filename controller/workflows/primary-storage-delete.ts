import { CisternError } from '../../shared/errors.ts';
import { findHost, findPrimaryStorage } from '../db/find.ts';
import { markPool } from '../fleet/connect.ts';
import { poolRef } from '../fleet/refs.ts';
import { claimLock, refuseVolumes } from '../operations/claims.ts';
import type { Workflow } from '../operations/workflow.ts';
import { workers } from '../policy/placement.ts';
import { whereEntry } from './cache-rows.ts';
import { forget, type HostRef } from './primary-storage-hosts.ts';

/** Removes a primary storage without volumes from cistern: its cache and trash go, the hosts unmount it. */
export const deletePrimaryStorage: Workflow<
  { ref: string },
  { storageId: string; shared: boolean; hosts: HostRef[]; oldState: 'enabled' | 'maintenance' | 'disabled' }
> = {
  kind: 'primary-storage.delete',
  async accept(trx, request, operationId, services) {
    const storage = await findPrimaryStorage(trx, request.ref);
    await claimLock(trx, operationId, `primary-storage/${storage.id}`, `primary storage ${storage.name}`);
    if (storage.state === 'maintenance')
      throw new CisternError(
        'WRONG_STATE',
        `primary storage ${storage.name} is in maintenance: its cache and its trash cannot be removed`,
        {
          action: 'Enable it first. Where the storage is gone for good, disable it: then it is only forgotten.',
        },
      );
    await refuseVolumes(trx, 'primary_storage_id', storage.id, `primary storage ${storage.name}`);
    const busy = await trx
      .selectFrom('cache_entries')
      .select('image_id')
      .where('primary_storage_id', '=', storage.id)
      .where('status', '<>', 'ready')
      .limit(1)
      .executeTakeFirst();
    if (busy) throw new CisternError('WRONG_STATE', `the image cache of primary storage ${storage.name} is being worked on`);
    const hosts: HostRef[] = [];
    for (const id of await workers(trx, services.fleet, storage.id)) hosts.push({ id, name: (await findHost(trx, id)).name });
    await trx.updateTable('primary_storages').set({ state: 'disabled' }).where('id', '=', storage.id).execute();
    return {
      plan: { storageId: storage.id, shared: storage.shared === 1, hosts, oldState: storage.state },
      resources: [{ kind: 'primary-storage', id: storage.id }],
    };
  },
  async run(op, plan) {
    const { db } = op.services;
    op.undo(
      'keep the primary storage',
      async () =>
        void (await db.write(trx =>
          trx.updateTable('primary_storages').set({ state: plan.oldState }).where('id', '=', plan.storageId).execute(),
        )),
    );
    for (const [i, { id: hostId, name }] of plan.hosts.entries()) {
      if (plan.shared && i > 0) break;
      await op.task(`empty the trash on ${name}`, hostId, 'pool.purge', async () => ({
        pool: await poolRef(op.services, plan.storageId),
        volumeIds: [],
        before: new Date().toISOString(),
      }));
      const cached = await op.step(`list the cache on ${name}`, async () =>
        (
          await db.read
            .selectFrom('cache_entries')
            .select('image_id')
            .where('primary_storage_id', '=', plan.storageId)
            .where('host_id', '=', plan.shared ? '' : hostId)
            .execute()
        ).map(row => row.image_id),
      );
      for (const imageId of cached) {
        await op.task(`evict ${imageId} on ${name}`, hostId, 'cache.evict', async () => ({
          pool: await poolRef(op.services, plan.storageId),
          imageId,
        }));
        const pool = { storageId: plan.storageId, hostId: plan.shared ? '' : hostId };
        await op.tx(
          `forget ${imageId} on ${name}`,
          async trx => void (await whereEntry(trx.deleteFrom('cache_entries'), pool, imageId).execute()),
        );
      }
    }
    for (const [i, { id: hostId, name }] of plan.hosts.toReversed().entries()) {
      // the last host to leave takes pool.json with it
      const forgetIt = !plan.shared || i === plan.hosts.length - 1;
      op.undo(`connect ${name} again`, async () => {
        // nothing was left in it: where it is no pool any more, it becomes this one again
        const pool = { pool: await poolRef(op.services, plan.storageId), initialize: forgetIt };
        try {
          const { capacity } = await op.task('connect', hostId, 'pool.connect', async () => pool);
          await db.write(trx => markPool(trx, op.services, plan.storageId, hostId, capacity, null));
        } catch (error) {
          if (op.signal().aborted || !(error instanceof CisternError)) throw error;
          await db.write(trx => markPool(trx, op.services, plan.storageId, hostId, null, error.message));
        }
      });
      await op.task(`disconnect ${name}`, hostId, 'pool.disconnect', async () => ({
        pool: await poolRef(op.services, plan.storageId),
        forget: forgetIt,
      }));
    }
    op.finish({ primaryStorageId: plan.storageId }, trx => forget(trx, plan.storageId));
  },
};
