import { findBackupStorage } from '../db/find.ts';
import { storeRef } from '../fleet/refs.ts';
import type { Workflow } from '../operations/workflow.ts';
import { anyHost } from '../policy/placement.ts';

/** Has a host run the conformance suite against a backup storage. A case that fails does not fail the operation: it stands in its output. */
export const validateBackupStorage: Workflow<{ ref: string }, { storeId: string }> = {
  kind: 'backup-storage.validate',
  async accept(trx, { ref }) {
    const store = await findBackupStorage(trx, ref);
    return { plan: { storeId: store.id }, resources: [{ kind: 'backup-storage', id: store.id }] };
  },
  async run(op, { storeId }) {
    const { db, fleet } = op.services;
    const hostId = await op.step('find a host', async () => (await anyHost(db.read, fleet)).id);
    const { cases } = await op.task('validate', hostId, 'store.validate', async () => ({
      store: await storeRef(op.services, storeId),
    }));
    op.finish({
      backupStorageId: storeId,
      passed: cases.filter(one => one.ok).length,
      failed: cases.filter(one => !one.ok).length,
      cases,
    });
  },
};
