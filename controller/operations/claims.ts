import { CisternError } from '../../shared/errors.ts';
import type { Trx } from '../db/database.ts';

/** Takes a lock for an operation that is being accepted; where another one has it, the request is refused at once with its name. */
export async function claimLock(trx: Trx, operationId: string, name: string, what: string): Promise<void> {
  const holder = await trx
    .selectFrom('locks')
    .innerJoin('operations', 'operations.id', 'locks.operation_id')
    .select(['operations.id', 'operations.kind'])
    .where('locks.name', '=', name)
    .executeTakeFirst();
  if (holder)
    throw new CisternError('WRONG_STATE', `operation ${holder.id} (${holder.kind}) works on ${what}`, {
      action: `Wait for it: cistern operation wait ${holder.id}`,
    });
  await trx.insertInto('locks').values({ name, operation_id: operationId, taken_at: new Date().toISOString() }).execute();
}

/** IN_USE where volumes that are not in the trash lie on what is to go: `column` of their rows holds `id`. */
export async function refuseVolumes(
  trx: Trx,
  column: 'host_id' | 'primary_storage_id',
  id: string,
  where: string,
): Promise<void> {
  const volumes = await trx
    .selectFrom('volumes')
    .select('name')
    .where(column, '=', id)
    .where('status', '<>', 'deleted')
    .limit(3)
    .execute();
  if (volumes.length > 0) throw new CisternError('IN_USE', `volumes lie on ${where}: ${volumes.map(row => row.name).join(', ')}`);
}
