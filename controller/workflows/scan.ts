import { findPrimaryStorage } from '../db/find.ts';
import type { Workflow } from '../operations/workflow.ts';
import { comparePool } from './compare-pool.ts';
import { countsOf, type Difference } from './difference.ts';
import { lookAtPools } from './look.ts';

interface Wanted {
  check?: boolean;
  adopt?: boolean;
  repair?: boolean;
}

/**
 * Compares a primary storage with what is known of it. With `adopt` volumes that nobody knew get rows, with `repair` rows follow what lies there;
 * nothing that lies there is ever changed.
 */
export const scanPrimaryStorage: Workflow<Wanted & { ref: string }, Wanted & { storageId: string }> = {
  kind: 'primary-storage.scan',
  async accept(trx, { ref, ...wanted }, _operationId, { recovery }) {
    const storage = await findPrimaryStorage(trx, ref);
    if (wanted.adopt || wanted.repair) recovery.refuse();
    return { plan: { storageId: storage.id, ...wanted }, resources: [{ kind: 'primary-storage', id: storage.id }] };
  },
  async run(op, { storageId, check = false, ...wanted }) {
    const { services } = op;
    let pools = await lookAtPools(op, storageId, { check });
    const mended = new Set<string>();
    if (wanted.adopt || wanted.repair) {
      // what operations make or remove meanwhile must not be taken for lost: it is held still, and looked at once more
      const found = await op.step('find what is to be changed', async () => {
        const all = (await Promise.all(pools.map(pool => comparePool(services.db.read, pool)))).flat();
        return all.flatMap(({ mend }) => (mend && wanted[mend.by] ? [{ key: mend.key, lock: mend.lock }] : []));
      });
      for (const { key } of found) mended.add(key);
      await op.lock(...new Set(found.map(({ lock }) => lock)));
      pools = await lookAtPools(op, storageId, { check, again: ' again' });
    }
    const differences = await op.tx(mended.size > 0 ? 'compare and change' : 'compare', async trx => {
      const all: Difference[] = [];
      for (const pool of pools)
        for (const { mend, ...difference } of await comparePool(trx, pool)) {
          if (!mend || !mended.has(mend.key)) all.push(difference);
          else all.push({ ...difference, ...(await mend.apply(trx, services)) });
        }
      return all;
    });
    op.finish({ primaryStorageId: storageId, ...countsOf(differences), differences });
  },
};
