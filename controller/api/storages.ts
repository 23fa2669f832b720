import { claimName, findBackupStorage, findCluster, findImage, findPrimaryStorage } from '../db/find.ts';
import { addBackupStorage, deleteBackupStorage, refreshBackupStorage } from '../workflows/backup-storage.ts';
import { addToCache, evictFromCache } from '../workflows/cache.ts';
import { addPrimaryStorage, refreshPrimaryStorage } from '../workflows/primary-storage.ts';
import { attachPrimaryStorage, detachPrimaryStorage } from '../workflows/primary-storage-clusters.ts';
import { deletePrimaryStorage } from '../workflows/primary-storage-delete.ts';
import { maintainPrimaryStorage } from '../workflows/primary-storage-maintain.ts';
import { scanPrimaryStorage } from '../workflows/scan.ts';
import { scanBackupStorage } from '../workflows/store-scan.ts';
import { validateBackupStorage } from '../workflows/store-validate.ts';
import { emptyTrash } from '../workflows/trash.ts';
import { verifyCache } from '../workflows/verify.ts';
import { type Api, type Handlers, startOperation } from './api.ts';
import { checkCursor, pageOf } from './paging.ts';
import { toBackupStorage, toCacheEntry, toPrimaryStorage } from './views.ts';

type PrimaryKeys =
  | 'listPrimaryStorages'
  | 'getPrimaryStorage'
  | 'addPrimaryStorage'
  | 'updatePrimaryStorage'
  | 'attachPrimaryStorage'
  | 'detachPrimaryStorage'
  | 'refreshPrimaryStorage'
  | 'maintainPrimaryStorage'
  | 'scanPrimaryStorage'
  | 'deletePrimaryStorage';

export function primaryStorageHandlers(api: Api): Handlers<PrimaryKeys> {
  const { db, events } = api.services;
  return {
    async listPrimaryStorages({ query }) {
      let rows = db.read.selectFrom('primary_storages').selectAll();
      if (query.type !== undefined) rows = rows.where('type', '=', query.type);
      if (query.state) rows = rows.where('state', '=', query.state);
      if (query.cluster !== undefined) {
        const cluster = await findCluster(db.read, query.cluster);
        rows = rows.where('id', 'in', e =>
          e.selectFrom('primary_storage_clusters').select('primary_storage_id').where('cluster_id', '=', cluster.id),
        );
      }
      const page = await pageOf(rows, query);
      const items = await Promise.all(page.rows.map(row => toPrimaryStorage(db.read, row)));
      // the status is worked out from hosts and pools, so it is filtered here
      return { items: query.status ? items.filter(item => item.status === query.status) : items, next: page.next };
    },
    getPrimaryStorage: async ({ params }) => toPrimaryStorage(db.read, await findPrimaryStorage(db.read, params.ref)),
    addPrimaryStorage: ({ body }, context) => startOperation(api, addPrimaryStorage, body, context),
    updatePrimaryStorage: ({ params, body }, { caller }) =>
      db.write(async trx => {
        const row = await findPrimaryStorage(trx, params.ref);
        if (body.name !== undefined && body.name !== row.name)
          await claimName(trx, 'primary_storages', 'primary storage', body.name);
        const set = {
          name: body.name ?? row.name,
          state: body.state ?? row.state,
          overcommit: body.overcommit ?? row.overcommit,
        };
        await trx.updateTable('primary_storages').set(set).where('id', '=', row.id).execute();
        if (set.state !== row.state)
          await events.append(
            trx,
            `primary-storage.${set.state}`,
            { kind: 'primary-storage', id: row.id },
            `primary storage ${set.name} is now ${set.state}`,
            caller.name,
          );
        return toPrimaryStorage(trx, { ...row, ...set });
      }),
    attachPrimaryStorage: ({ params, body }, context) =>
      startOperation(api, attachPrimaryStorage, { ...params, ...body }, context),
    detachPrimaryStorage: ({ params, body }, context) =>
      startOperation(api, detachPrimaryStorage, { ...params, ...body }, context),
    refreshPrimaryStorage: ({ params }, context) => startOperation(api, refreshPrimaryStorage, params, context),
    maintainPrimaryStorage: ({ params, body }, context) =>
      startOperation(api, maintainPrimaryStorage, { ...params, ...body }, context),
    scanPrimaryStorage: ({ params, body }, context) => startOperation(api, scanPrimaryStorage, { ...params, ...body }, context),
    deletePrimaryStorage: ({ params }, context) => startOperation(api, deletePrimaryStorage, params, context),
  };
}

type CacheKeys = 'listCache' | 'addToCache' | 'evictFromCache' | 'verifyCache' | 'listTrash' | 'emptyTrash';

export function cacheHandlers(api: Api): Handlers<CacheKeys> {
  const { db } = api.services;
  return {
    async listCache({ query }) {
      let rows = db.read
        .selectFrom('cache_entries as c')
        .selectAll('c')
        .select(e =>
          e
            .selectFrom('volumes as v')
            .select(v => v.fn.countAll<number>().as('n'))
            .whereRef('v.image_id', '=', 'c.image_id')
            .whereRef('v.primary_storage_id', '=', 'c.primary_storage_id')
            .whereRef('v.host_id', '=', 'c.host_id')
            .as('volumes'),
        );
      if (query.image !== undefined) rows = rows.where('image_id', '=', (await findImage(db.read, query.image)).id);
      if (query.primaryStorage !== undefined)
        rows = rows.where('primary_storage_id', '=', (await findPrimaryStorage(db.read, query.primaryStorage)).id);
      checkCursor(query.cursor, /^[0-9a-f-]{36}\/[0-9a-f-]{36}\/([0-9a-f-]{36})?$/);
      // an entry has no id of its own: its three parts are its place in the list
      const place = (row: { image_id: string; primary_storage_id: string; host_id: string }) =>
        `${row.image_id}/${row.primary_storage_id}/${row.host_id}`;
      const all = await rows.orderBy('c.image_id').orderBy('c.primary_storage_id').orderBy('c.host_id').execute();
      const after = all.filter(row => query.cursor === undefined || place(row) > query.cursor);
      const shown = after.slice(0, query.limit);
      return {
        items: shown.map(row => toCacheEntry({ ...row, volumes: row.volumes ?? 0 })),
        next: after.length > shown.length ? place(shown.at(-1)!) : null,
      };
    },
    addToCache: ({ body }, context) => startOperation(api, addToCache, body, context),
    evictFromCache: ({ body }, context) => startOperation(api, evictFromCache, body, context),
    verifyCache: ({ body }, context) => startOperation(api, verifyCache, body, context),
    async listTrash({ query }) {
      let rows = db.read.selectFrom('volumes').selectAll().where('status', '=', 'deleted');
      if (query.primaryStorage !== undefined)
        rows = rows.where('primary_storage_id', '=', (await findPrimaryStorage(db.read, query.primaryStorage)).id);
      const page = await pageOf(rows, query);
      return {
        items: page.rows.map(row => ({
          volumeId: row.id,
          name: row.name,
          primaryStorageId: row.primary_storage_id,
          hostId: row.host_id === '' ? null : row.host_id,
          allocated: row.allocated,
          deletedAt: row.deleted_at!,
        })),
        next: page.next,
      };
    },
    emptyTrash: ({ body }, context) => startOperation(api, emptyTrash, body, context),
  };
}

type BackupKeys =
  | 'listBackupStorages'
  | 'getBackupStorage'
  | 'addBackupStorage'
  | 'updateBackupStorage'
  | 'refreshBackupStorage'
  | 'scanBackupStorage'
  | 'validateBackupStorage'
  | 'deleteBackupStorage';

export function backupStorageHandlers(api: Api): Handlers<BackupKeys> {
  const { db, events, fleet } = api.services;
  return {
    async listBackupStorages({ query }) {
      let rows = db.read.selectFrom('backup_storages').selectAll();
      if (query.type !== undefined) rows = rows.where('type', '=', query.type);
      if (query.status) rows = rows.where('status', '=', query.status);
      if (query.state) rows = rows.where('state', '=', query.state);
      const page = await pageOf(rows, query);
      return { items: page.rows.map(toBackupStorage), next: page.next };
    },
    getBackupStorage: async ({ params }) => toBackupStorage(await findBackupStorage(db.read, params.ref)),
    addBackupStorage: ({ body }, context) => startOperation(api, addBackupStorage, body, context),
    updateBackupStorage: async ({ params, body }, { caller }) => {
      const updated = await db.write(async trx => {
        const row = await findBackupStorage(trx, params.ref);
        if (body.name !== undefined && body.name !== row.name)
          await claimName(trx, 'backup_storages', 'backup storage', body.name);
        const { bytesPerSecond = row.bytes_per_second, transfers = row.transfers } = body.limits ?? {};
        const set = {
          name: body.name ?? row.name,
          state: body.state ?? row.state,
          bytes_per_second: bytesPerSecond,
          transfers,
        };
        await trx.updateTable('backup_storages').set(set).where('id', '=', row.id).execute();
        if (set.state !== row.state)
          await events.append(
            trx,
            `backup-storage.${set.state}`,
            { kind: 'backup-storage', id: row.id },
            `backup storage ${set.name} is now ${set.state}`,
            caller.name,
          );
        return toBackupStorage({ ...row, ...set });
      });
      await fleet.limitsChanged(updated.id);
      return updated;
    },
    refreshBackupStorage: ({ params }, context) => startOperation(api, refreshBackupStorage, params, context),
    scanBackupStorage: ({ params, body }, context) => startOperation(api, scanBackupStorage, { ...params, ...body }, context),
    validateBackupStorage: ({ params }, context) => startOperation(api, validateBackupStorage, params, context),
    deleteBackupStorage: ({ params }, context) => startOperation(api, deleteBackupStorage, params, context),
  };
}
