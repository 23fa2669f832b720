import { CisternError, type ErrorCode, ERRORS, type ReplicaFault } from '../../shared/errors.ts';
import type { Reader } from '../db/database.ts';
import { findBackupStorage, findImage, findPrimaryStorage } from '../db/find.ts';
import { poolRef, storeRef } from '../fleet/refs.ts';
import type { Workflow } from '../operations/workflow.ts';
import { anyHost } from '../policy/placement.ts';
import { cacheLock } from './cache-entry.ts';
import { type CacheRequest, type Part, partOf, poolsHolding } from './cache-parts.ts';
import { whereEntry } from './cache-rows.ts';
import { isOfObject, markCacheDamaged, markFaults, markReplica } from './damage.ts';

interface VerifyRequest extends CacheRequest {
  /** Null: as fast as it goes. */
  bytesPerSecond?: number | null;
}

interface CachePlan {
  imageId: string;
  bytesPerSecond: number | null;
  pools: Part[];
}

/** Reads cached copies of an image from end to end, and notes those that are damaged: it fails then, and says how to mend them. */
export const verifyCache: Workflow<VerifyRequest, CachePlan> = {
  kind: 'cache.verify',
  async accept(trx, request, _operationId, services) {
    const image = await findImage(trx, request.image);
    const storage = await findPrimaryStorage(trx, request.primaryStorage);
    const pools: Part[] = [];
    for (const pool of await poolsHolding(trx, image, storage, request.host)) pools.push(await partOf(trx, services, pool));
    return {
      plan: { imageId: image.id, bytesPerSecond: request.bytesPerSecond ?? null, pools },
      resources: [
        { kind: 'image', id: image.id },
        { kind: 'primary-storage', id: storage.id },
      ],
    };
  },
  async run(op, { imageId, bytesPerSecond, pools }) {
    const { services } = op;
    const { format } = await findImage(services.db.read, imageId);
    const damaged: string[] = [];
    for (const pool of pools) {
      const { label } = pool;
      await op.lock(cacheLock(pool, imageId));
      try {
        await op.task(`verify${label}`, pool.workerHostId, 'cache.verify', async () => ({
          pool: await poolRef(services, pool.storageId),
          image: { id: imageId, format },
          bytesPerSecond,
        }));
      } catch (error) {
        if (!(error instanceof CisternError && error.code === 'CACHE_DAMAGED')) throw error;
        const users = await op.tx(`note the damage${label}`, async trx => {
          await markCacheDamaged(trx, services, pool, imageId, error.message);
          return whereEntry(trx.selectFrom('volumes').select('name'), pool, imageId).limit(4).execute();
        });
        const names = users.slice(0, 3).map(user => user.name).join(', ') + (users.length > 3 ? ', ...' : ''); // prettier-ignore
        damaged.push(`${error.message}${names && ` (volumes stand on it: ${names})`}`);
        continue;
      }
      await op.tx(`note that it is sound${label}`, async trx => {
        const set = { status: 'ready' as const, reason: null, verified_at: new Date().toISOString() };
        await whereEntry(trx.updateTable('cache_entries').set(set), pool, imageId)
          .where('status', 'in', ['ready', 'damaged'])
          .execute();
      });
    }
    if (damaged.length > 0) throw new CisternError('CACHE_DAMAGED', damaged.join('; '));
    op.finish({ imageId, pools: pools.length });
  },
};

/** Reads an image on each of its backup storages, and notes which replicas are damaged, and which are sound again. */
export const verifyImage: Workflow<{ ref: string }, { imageId: string; hostId: string; storeIds: string[] }> = {
  kind: 'image.verify',
  async accept(trx, request, _operationId, services) {
    const image = await findImage(trx, request.ref);
    if (image.status !== 'ready') throw new CisternError('WRONG_STATE', `image ${image.name} is ${image.status}`);
    const replicas = await trx
      .selectFrom('replicas')
      .select('backup_storage_id')
      .where('image_id', '=', image.id)
      .where('status', 'in', ['ready', 'damaged'])
      .execute();
    const host = await anyHost(trx, services.fleet);
    return {
      plan: { imageId: image.id, hostId: host.id, storeIds: replicas.map(row => row.backup_storage_id) },
      resources: [{ kind: 'image', id: image.id }],
    };
  },
  async run(op, { imageId, hostId, storeIds }) {
    const { services } = op;
    const image = await findImage(services.db.read, imageId);
    const faults: ReplicaFault[] = [];
    for (const [i, storeId] of storeIds.entries()) {
      try {
        await op.task(`verify replica ${i + 1}`, hostId, 'image.verify', async () => ({
          store: await storeRef(services, storeId),
          image: { id: imageId, format: image.format },
          digest: image.digest!,
        }));
      } catch (error) {
        if (op.signal().aborted || !(error instanceof CisternError)) throw error;
        faults.push({ storeId, code: error.code, detail: error.message });
        continue;
      }
      await op.tx(`note that replica ${i + 1} is sound`, trx => markReplica(trx, services, imageId, storeId, null));
    }
    if (faults.length > 0) {
      await op.tx('note the damage', trx => markFaults(trx, services, imageId, faults));
      const code = faults[0]!.code as ErrorCode;
      throw new CisternError(code, await tellFaults(services.db.read, faults), {
        action: isOfObject(code)
          ? `Use another replica, and mend this one from it: cistern image replicate ${image.name} --to BACKUP_STORAGE.`
          : ERRORS[code].action,
        replicas: faults,
      });
    }
    op.finish({ imageId, replicas: storeIds.length });
  },
};

/** Each fault with the name of its backup storage. */
async function tellFaults(db: Reader, faults: ReplicaFault[]): Promise<string> {
  const told: string[] = [];
  for (const { storeId, detail } of faults) told.push(`${(await findBackupStorage(db, storeId)).name}: ${detail}`);
  return told.join('; ');
}
