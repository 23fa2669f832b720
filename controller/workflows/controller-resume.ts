import { CisternError, toProblem } from '../../shared/errors.ts';
import type { Trx } from '../db/database.ts';
import { elapsedNow } from '../db/elapsed.ts';
import { connectHost } from '../fleet/connect.ts';
import type { Run, Workflow } from '../operations/workflow.ts';
import { type FoundPool, type FoundStore, lookAtPools, lookAtStore } from './look.ts';
import { settleImages } from './settle-images.ts';
import { type Settled, settlePool, settleUnseen } from './settle-volumes.ts';

/**
 * Recovers a database that was put back to an old copy: what it shows as under way has ended long ago, so that is ended as failed
 * without undoing anything, and rows follow what lies on the storages. Nothing on a storage is changed; what lies there without a
 * row stays.
 */
export const resumeController: Workflow<Record<string, never>, Record<string, never>> = {
  kind: 'controller.resume',
  accept(_trx, _request, _operationId, services) {
    if (!services.recovery.current())
      throw new CisternError('WRONG_STATE', 'the database need not be recovered: the controller works');
    return Promise.resolve({ plan: {}, resources: [] });
  },
  async run(op) {
    const { db, recovery, log } = op.services;
    const unseen: string[] = [];
    const look = async <T>(name: string, work: () => Promise<T>, none: T): Promise<T> => {
      try {
        return await work();
      } catch (error) {
        if (op.signal().aborted || !(error instanceof CisternError)) throw error;
        log.warn({ err: error, storage: name }, 'a storage could not be looked at for the recovery');
        unseen.push(name);
        return none;
      }
    };
    const pools: FoundPool[] = [];
    for (const { id, name } of await db.read.selectFrom('primary_storages').select(['id', 'name']).orderBy('name').execute())
      pools.push(...(await look(name, () => lookAtPools(op, id), [])));
    const stores: FoundStore[] = [];
    for (const { id, name } of await db.read.selectFrom('backup_storages').select(['id', 'name']).orderBy('name').execute())
      stores.push(...(await look(name, async () => [await lookAtStore(op, id)], [])));
    const settled = await op.tx('recover', async trx => {
      const result: Settled = { ready: 0, trashed: 0, missing: 0, forgotten: 0 };
      const ended = await endOperations(trx, op);
      for (const pool of pools) await settlePool(trx, pool, result);
      result.missing += await settleUnseen(trx);
      const images = await settleImages(trx, stores);
      // what was only being added is asked again, and every agent is taken over, whatever it has seen
      await trx.updateTable('hosts').set({ status: 'disconnected' }).where('status', '=', 'connecting').execute();
      await trx.updateTable('backup_storages').set({ status: 'disconnected' }).where('status', '=', 'connecting').execute();
      await trx.updateTable('hosts').set({ adopt: 1 }).execute();
      await recovery.leave(trx);
      return { operations: ended, volumes: { ...result }, missingImages: images.missing };
    });
    await op.step('meet the hosts', async () => {
      recovery.left();
      const hosts = await db.read.selectFrom('hosts').select('id').where('status', '=', 'connected').execute();
      await Promise.all(
        hosts.map(({ id }) =>
          connectHost(op.services, id).catch(error => log.warn({ err: error, hostId: id }, 'a host could not be met')),
        ),
      );
    });
    op.finish({ ...settled, unseen });
  },
};

/** Ends all operations but this one; what they held and meant to remove is forgotten. */
async function endOperations(trx: Trx, { id, services }: Run): Promise<number> {
  const rows = await trx
    .selectFrom('operations')
    .select(['id', 'kind'])
    .where('finished_at', 'is', null)
    .where('id', '<>', id)
    .execute();
  const problem = toProblem(
    new CisternError(
      'CONTROLLER_OUTDATED',
      'it was under way when this copy of the database was made; how it ended is not known',
      {
        action: 'See what lies on the storages, and start it again if it is still wanted.',
      },
    ),
  );
  for (const row of rows) {
    await trx
      .updateTable('operations')
      .set({
        state: 'failed',
        error_json: JSON.stringify(problem),
        finished_at: new Date().toISOString(),
        finished_elapsed: elapsedNow(),
      })
      .where('id', '=', row.id)
      .execute();
    await services.events.append(
      trx,
      'operation.failed',
      { kind: 'operation', id: row.id },
      `${row.kind} failed: ${problem.detail}`,
    );
  }
  await trx.deleteFrom('locks').where('operation_id', '<>', id).execute();
  await trx.deleteFrom('reservations').where('operation_id', '<>', id).execute();
  await trx.deleteFrom('garbage').execute();
  return rows.length;
}
