import type { StoreRef } from '../../shared/commands/refs.ts';
import { CisternError } from '../../shared/errors.ts';
import { newId } from '../../shared/id.ts';
import type { Capacity } from '../../shared/model.ts';
import type { Trx } from '../db/database.ts';
import { claimName, findBackupStorage } from '../db/find.ts';
import type { Row } from '../db/schema.ts';
import { driverFacts, storeRef, withoutSecrets } from '../fleet/refs.ts';
import { claimLock } from '../operations/claims.ts';
import type { Workflow } from '../operations/workflow.ts';
import { anyHost } from '../policy/placement.ts';
import type { Services } from '../services.ts';

interface Plan {
  storeId: string;
  hostId: string;
  /** What may be shown of the settings. */
  shown?: Record<string, unknown>;
}

const reached = (capacity: Capacity | null) => ({
  status: 'connected' as const,
  reason: null,
  total: capacity?.total ?? null,
  available: capacity?.available ?? null,
});

/** Adds a backup storage: a host must reach it, read it and write it. */
export const addBackupStorage: Workflow<{ name: string; type: string; config: Record<string, unknown> }, Plan> = {
  kind: 'backup-storage.add',
  async accept(trx, request, _operationId, services) {
    await claimName(trx, 'backup_storages', 'backup storage', request.name);
    const host = await anyHost(trx, services.fleet);
    const driver = await driverFacts(trx, 'backup', request.type);
    const id = newId();
    await trx
      .insertInto('backup_storages')
      .values({
        id,
        name: request.name,
        type: request.type,
        // shown once a host has taken it: until then it may hold anything
        config_json: '{}',
        config_sealed: services.secrets.seal(request.config, `backup_storages.config_sealed/${id}`),
        state: 'enabled',
        status: 'connecting',
        reason: null,
        total: null,
        available: null,
        created_at: new Date().toISOString(),
      })
      .execute();
    const shown = withoutSecrets(driver, request.config);
    return { plan: { storeId: id, hostId: host.id, shown }, resources: [{ kind: 'backup-storage', id }] };
  },
  async run(op, plan) {
    op.undo(
      'forget the backup storage',
      async () =>
        void (await op.services.db.write(trx => trx.deleteFrom('backup_storages').where('id', '=', plan.storeId).execute())),
    );
    const out = await op.task('connect', plan.hostId, 'store.connect', async () => ({
      store: await storeRef(op.services, plan.storeId),
      others: await connectedStores(op.services, plan.storeId),
    }));
    await refuseSamePlace(op.services, plan.storeId, out.sameAs);
    op.finish(
      { backupStorageId: plan.storeId, capacity: out.capacity },
      async trx =>
        void (await trx
          .updateTable('backup_storages')
          .set({ ...reached(out.capacity), config_json: JSON.stringify(plan.shown) })
          .where('id', '=', plan.storeId)
          .execute()),
    );
  },
};

/** Checks a backup storage again. */
export const refreshBackupStorage: Workflow<{ ref: string }, Plan> = {
  kind: 'backup-storage.refresh',
  async accept(trx, request, _operationId, services) {
    const store = await findBackupStorage(trx, request.ref);
    const host = await anyHost(trx, services.fleet);
    return { plan: { storeId: store.id, hostId: host.id }, resources: [{ kind: 'backup-storage', id: store.id }] };
  },
  async run(op, plan) {
    const out = await op
      .task('connect', plan.hostId, 'store.connect', async () => ({ store: await storeRef(op.services, plan.storeId) }))
      .catch(async (error: unknown) => {
        if (isOfStore(error)) await op.services.db.write(trx => markStore(trx, plan.storeId, error));
        throw error;
      });
    op.finish(
      { backupStorageId: plan.storeId, capacity: out.capacity },
      async trx =>
        void (await trx.updateTable('backup_storages').set(reached(out.capacity)).where('id', '=', plan.storeId).execute()),
    );
  },
};

/** Removes a backup storage without images from cistern; nothing on it is touched. */
export const deleteBackupStorage: Workflow<{ ref: string }, { storeId: string }> = {
  kind: 'backup-storage.delete',
  async accept(trx, request, operationId) {
    const store = await findBackupStorage(trx, request.ref);
    await claimLock(trx, operationId, `backup-storage/${store.id}`, `backup storage ${store.name}`);
    await refuseImages(trx, store);
    return { plan: { storeId: store.id }, resources: [{ kind: 'backup-storage', id: store.id }] };
  },
  async run(op, plan) {
    await op.tx('forget the backup storage', async trx => {
      const store = await trx.selectFrom('backup_storages').selectAll().where('id', '=', plan.storeId).executeTakeFirst();
      // until its turn came, others may have chosen it for an image
      if (store) await refuseImages(trx, store);
      await trx.deleteFrom('backup_storages').where('id', '=', plan.storeId).execute();
    });
    op.finish({ backupStorageId: plan.storeId });
  },
};

/** The backup storages that can be reached, as far as is known, but this one. */
async function connectedStores(services: Services, storeId: string): Promise<StoreRef[]> {
  const stores = services.db.read.selectFrom('backup_storages').select('id').where('id', '<>', storeId);
  const ids = (await stores.where('status', '=', 'connected').execute()).map(store => store.id);
  return Promise.all(ids.map(id => storeRef(services, id)));
}

/** STORE_CONFIG where a backup storage was found to be the same place as another: one object would count as two, and go with either. */
export async function refuseSamePlace({ db }: Services, storeId: string, sameAs: string | null): Promise<void> {
  if (sameAs === null) return;
  const [mine, other] = [await findBackupStorage(db.read, storeId), await findBackupStorage(db.read, sameAs)];
  throw new CisternError('STORE_CONFIG', `backup storage ${mine.name} is the same place as backup storage ${other.name}`, {
    action: 'Use the one that is known already, or another folder.',
  });
}

/** IN_USE where images lie on a backup storage, or are on their way there. */
async function refuseImages(trx: Trx, { id, name }: Row<'backup_storages'>): Promise<void> {
  const images = await trx
    .selectFrom('replicas')
    .innerJoin('images', 'images.id', 'replicas.image_id')
    .select('images.name')
    .where('backup_storage_id', '=', id)
    .limit(3)
    .execute();
  if (images.length > 0)
    throw new CisternError('IN_USE', `images lie on backup storage ${name}: ${images.map(row => row.name).join(', ')}`);
}

/** Whether a check that failed speaks of the storage itself: a host that is away, or a cancel, says nothing of it. */
export const isOfStore = (error: unknown): error is CisternError =>
  error instanceof CisternError && (error.code.startsWith('STORE_') || error.code === 'OBJECT_MISSING');

/** Notes what a check of a backup storage found. */
export async function markStore(trx: Trx, storeId: string, outcome: { capacity: Capacity | null } | CisternError): Promise<void> {
  const set =
    outcome instanceof CisternError ? { status: 'disconnected' as const, reason: outcome.message } : reached(outcome.capacity);
  await trx.updateTable('backup_storages').set(set).where('id', '=', storeId).execute();
}
