import { CisternError } from '../../shared/errors.ts';
import { newId } from '../../shared/id.ts';
import type { Role } from '../../shared/model.ts';
import type { Row } from '../db/schema.ts';
import type { Services } from '../services.ts';
import type { Workflow } from './workflow.ts';

export interface StartOptions {
  idempotencyKey?: string;
  retryOf?: string;
  /** What may be shown of the request (`shownOf`), which itself is stored sealed. */
  shown: unknown;
  /** Name of the token that it is asked for with; else it is the controller's own work. */
  by?: string;
  /** What a token needs to cancel it or to start it again. */
  role?: Role;
}

/**
 * The one transaction that takes a request on: what the workflow claims, and the row of the operation. The same Idempotency-Key with the
 * same request finds the operation that there is (`isNew` false); with another one it is IDEMPOTENCY_MISMATCH.
 */
export async function acceptOperation<R, P>(
  services: Services,
  workflow: Workflow<R, P>,
  request: R,
  options: StartOptions,
): Promise<{ row: Row<'operations'>; isNew: boolean }> {
  const requestHash = services.secrets.fingerprint([workflow.kind, request]);
  // clients make keys of what they like
  const key = options.idempotencyKey === undefined ? null : services.secrets.fingerprint(['key', options.idempotencyKey]);
  return services.db.write(async trx => {
    if (key !== null) {
      const known = await trx.selectFrom('operations').selectAll().where('idempotency_key', '=', key).executeTakeFirst();
      if (known && known.request_hash !== requestHash)
        throw new CisternError(
          'IDEMPOTENCY_MISMATCH',
          `the Idempotency-Key belongs to operation ${known.id}, which was another request`,
        );
      if (known) return { row: known, isNew: false };
    }
    const id = newId();
    const { plan, resources } = await workflow.accept(trx, request, id, services);
    const made: Row<'operations'> = {
      id,
      kind: workflow.kind,
      state: 'queued',
      input_json: JSON.stringify(options.shown),
      request_sealed: services.secrets.seal(request, `operations.request_sealed/${id}`),
      plan_sealed: services.secrets.seal(plan, `operations.plan_sealed/${id}`),
      output_json: null,
      error_json: null,
      resources_json: JSON.stringify(resources),
      retry_of: options.retryOf ?? null,
      idempotency_key: key,
      request_hash: requestHash,
      asked_by: options.by ?? null,
      role: options.role ?? 'operator',
      created_at: new Date().toISOString(),
      finished_at: null,
      finished_elapsed: null,
    };
    await trx
      .insertInto('operations')
      .values({ ...made, state: 'running' })
      .execute();
    return { row: made, isNew: true };
  });
}
