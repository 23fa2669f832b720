import { findPrimaryStorage } from '../db/find.ts';
import type { Workflow } from '../operations/workflow.ts';
import { countsOf, type Difference, SETTLED } from './difference.ts';
import { lookAtPools } from './look.ts';

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
    op.finish({ primaryStorageId: storageId, ...countsOf(differences), differences });
  },
};
