import { findBackupStorage, findPrimaryStorage } from '../db/find.ts';
import type { Workflow } from '../operations/workflow.ts';
import { lookAtPools, lookAtStore } from './look.ts';

/** Something that only one side has: `orphan` lies there without a row, `missing` has a row and does not lie there. */
interface Difference {
  what: 'orphan' | 'missing';
  kind: 'volume' | 'volume in the trash' | 'cached image' | 'image';
  id: string;
  name?: string;
  hostId?: string;
  size?: number | null;
  createdAt?: string | null;
}

/** What operations are about to make or to remove is no difference. */
const SETTLED = ['ready', 'deleted', 'missing'];

/** Compares a primary storage with what is known of it; changes nothing. */
export const scanPrimaryStorage: Workflow<{ ref: string }, { storageId: string }> = {
  kind: 'primary-storage.scan',
  async accept(trx, request) {
    const storage = await findPrimaryStorage(trx, request.ref);
    return { plan: { storageId: storage.id }, resources: [{ kind: 'primary-storage', id: storage.id }] };
  },
  async run(op, { storageId }) {
    const pools = await lookAtPools(op, storageId);
    const differences = await op.tx('compare', async trx => {
      const all: Difference[] = [];
      for (const { hostId, volumes, trash, cache } of pools) {
        const rows = await trx
          .selectFrom('volumes')
          .select(['id', 'name', 'status', 'size', 'created_at'])
          .where('primary_storage_id', '=', storageId)
          .where('host_id', '=', hostId)
          .execute();
        const entries = await trx
          .selectFrom('cache_entries')
          .select(['image_id', 'status', 'size'])
          .where('primary_storage_id', '=', storageId)
          .where('host_id', '=', hostId)
          .execute();
        const on = hostId === '' ? {} : { hostId };
        const known = new Set(rows.map(row => row.id));
        const kept = new Set(entries.map(entry => entry.image_id));
        const there = new Set([...volumes, ...trash].map(found => found.id));
        const cached = new Set(cache.map(found => found.imageId));
        const orphan = (kind: Difference['kind'], found: (typeof volumes)[number]): Difference => ({
          what: 'orphan',
          kind,
          id: found.id,
          ...on,
          size: found.size,
          createdAt: found.createdAt,
        });
        all.push(
          ...volumes.filter(found => !known.has(found.id)).map(found => orphan('volume', found)),
          ...trash.filter(found => !known.has(found.id)).map(found => orphan('volume in the trash', found)),
          ...cache
            .filter(found => !kept.has(found.imageId))
            .map(found => ({ what: 'orphan', kind: 'cached image', id: found.imageId, ...on, size: found.allocated }) as const),
          ...rows
            .filter(row => SETTLED.includes(row.status) && !there.has(row.id))
            .map(
              row =>
                ({
                  what: 'missing',
                  kind: row.status === 'deleted' ? 'volume in the trash' : 'volume',
                  id: row.id,
                  name: row.name,
                  ...on,
                  size: row.size,
                  createdAt: row.created_at,
                }) as const,
            ),
          ...entries
            .filter(entry => entry.status === 'ready' && !cached.has(entry.image_id))
            .map(entry => ({ what: 'missing', kind: 'cached image', id: entry.image_id, ...on, size: entry.size }) as const),
        );
      }
      return all;
    });
    op.finish({ primaryStorageId: storageId, ...counts(differences), differences });
  },
};

/** Compares a backup storage with what is known of it; changes nothing. */
export const scanBackupStorage: Workflow<{ ref: string }, { storeId: string }> = {
  kind: 'backup-storage.scan',
  async accept(trx, request) {
    const store = await findBackupStorage(trx, request.ref);
    return { plan: { storeId: store.id }, resources: [{ kind: 'backup-storage', id: store.id }] };
  },
  async run(op, { storeId }) {
    const { images } = await lookAtStore(op, storeId);
    const differences = await op.tx('compare', async trx => {
      const rows = await trx
        .selectFrom('replicas')
        .innerJoin('images', 'images.id', 'replicas.image_id')
        .select(['images.id', 'images.name', 'images.size', 'images.created_at', 'replicas.status'])
        .where('backup_storage_id', '=', storeId)
        .execute();
      const known = new Set(rows.map(row => row.id));
      const whole = new Set(images.filter(image => image.manifest).map(image => image.id));
      const orphans = images
        .filter(image => !known.has(image.id))
        .map(({ id, manifest }): Difference => ({
          what: 'orphan',
          kind: 'image',
          id,
          size: manifest?.size ?? null,
          createdAt: manifest?.createdAt ?? null,
        }));
      const missing = rows
        .filter(row => SETTLED.includes(row.status) && !whole.has(row.id))
        .map(({ id, name, size, created_at }): Difference => ({
          what: 'missing',
          kind: 'image',
          id,
          name,
          size,
          createdAt: created_at,
        }));
      return [...orphans, ...missing];
    });
    op.finish({ backupStorageId: storeId, ...counts(differences), differences });
  },
};

const counts = (all: Difference[]): { orphans: number; missing: number } => ({
  orphans: all.filter(one => one.what === 'orphan').length,
  missing: all.filter(one => one.what === 'missing').length,
});
