import { sql } from 'kysely';
import type { Problem } from '../../shared/errors.ts';
import { FINAL_STATES, type Operation, type OperationState, type OperationStep, type ResourceRef } from '../../shared/model.ts';
import type { Progress } from '../../shared/task.ts';
import type { Reader, Trx } from '../db/database.ts';
import type { Row } from '../db/schema.ts';

export const isEnded = (state: OperationState): boolean => FINAL_STATES.includes(state);

/** What is known of an operation only while it runs in this process. */
export interface Live {
  progress: Progress | null;
  step: { name: string; startedAt: string } | null;
}

export function toOperation(row: Row<'operations'>, steps: Row<'steps'>[], live?: Live): Operation {
  const shown: OperationStep[] = steps.map(step => ({
    name: step.name,
    state: step.state,
    startedAt: step.started_at,
    finishedAt: step.finished_at,
    ...(step.result_json !== null && { result: JSON.parse(step.result_json) as unknown }),
  }));
  if (live?.step && !isEnded(row.state))
    shown.push({ name: live.step.name, state: 'running', startedAt: live.step.startedAt, finishedAt: null });
  return {
    id: row.id,
    kind: row.kind,
    state: row.state,
    input: JSON.parse(row.input_json) as Record<string, unknown>,
    output: row.output_json === null ? null : (JSON.parse(row.output_json) as Record<string, unknown>),
    resources: JSON.parse(row.resources_json) as ResourceRef[],
    steps: shown,
    progress: isEnded(row.state) ? null : (live?.progress ?? null),
    error: row.error_json === null ? null : (JSON.parse(row.error_json) as Problem),
    retryOf: row.retry_of,
    by: row.asked_by,
    createdAt: row.created_at,
    finishedAt: row.finished_at,
  };
}

/** The order in which steps were first written, whatever the clock did. */
export const STEP_ORDER = sql`rowid`;

export const readSteps = (db: Reader, operationId: string): Promise<Row<'steps'>[]> =>
  db.selectFrom('steps').selectAll().where('operation_id', '=', operationId).orderBy(STEP_ORDER).execute();

export async function writeStep(
  trx: Trx,
  operationId: string,
  name: string,
  startedAt: string,
  result: unknown,
  state: 'done' | 'failed' | 'undone' = 'done',
): Promise<void> {
  const row = {
    state,
    started_at: startedAt,
    finished_at: new Date().toISOString(),
    result_json: result === undefined ? null : JSON.stringify(result),
  };
  await trx
    .insertInto('steps')
    .values({ operation_id: operationId, name, ...row })
    .onConflict(c => c.columns(['operation_id', 'name']).doUpdateSet(row))
    .execute();
}
