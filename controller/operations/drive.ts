import { CisternError, type Problem, toProblem } from '../../shared/errors.ts';
import type { OperationState } from '../../shared/model.ts';
import { elapsedNow } from '../db/elapsed.ts';
import type { Trx } from '../db/database.ts';
import type { Row } from '../db/schema.ts';
import type { Services } from '../services.ts';
import { type Live, readSteps } from './journal.ts';
import type { Locks } from './locks.ts';
import { createRun, isShutdown } from './run.ts';
import type { Workflow } from './workflow.ts';

/** One operation, and what it is driven with. */
export interface Drive {
  services: Services;
  locks: Locks;
  workflow: Workflow<never, never>;
  row: Row<'operations'>;
  live: Live;
  /** Aborted: the operation is cancelled. */
  cancelled: AbortSignal;
  /** Aborted: it is left as it is, to be taken up again later. */
  stopped: AbortSignal;
  changed: () => void;
}

/**
 * Runs an operation from where its journal ends to its own end: in success, or undone in failure. Returns its last state, undefined
 * where it was stopped before. Throws where what it came to cannot be written down.
 */
export async function driveOperation(drive: Drive): Promise<OperationState | undefined> {
  const { services, locks, workflow, row, live, cancelled, stopped, changed } = drive;
  const { db, log, secrets } = services;
  const fresh = row.state === 'queued';
  const steps = fresh ? [] : await readSteps(db.read, row.id);
  const done = new Map(
    steps.map(step => [step.name, step.result_json === null ? undefined : (JSON.parse(step.result_json) as unknown)]),
  );
  const undoneBefore = row.state === 'undoing' ? (JSON.parse(row.error_json!) as Problem) : undefined;
  const signal = AbortSignal.any([cancelled, stopped]);
  const replayed =
    undoneBefore && new CisternError(undoneBefore.code as 'INTERNAL', undoneBefore.detail, { action: undoneBefore.action });
  const driven = createRun({ id: row.id, services, locks, live, changed, done, signal, resumed: !fresh, replayed });
  try {
    await workflow.run(driven.run, secrets.open(row.plan_sealed, `operations.plan_sealed/${row.id}`));
    if (replayed) throw replayed;
  } catch (error) {
    if (stopped.aborted) return undefined;
    const problem = toProblem(error);
    if (problem.code === 'INTERNAL')
      log.error({ operation: row.id, kind: row.kind, err: error }, 'an operation failed unexpectedly');
    await noteUndoing(drive, problem);
    try {
      await driven.undoAll(stopped);
    } catch (failure) {
      if (isShutdown(stopped)) return undefined;
      throw failure;
    }
    const state = problem.code === 'CANCELLED' ? 'cancelled' : 'failed';
    await end(drive, state, { error_json: JSON.stringify(problem) }, `${row.kind} ${state}: ${problem.detail}`, driven.flush);
    return state;
  }
  await end(drive, 'succeeded', { output_json: JSON.stringify(driven.ending.output) }, `${row.kind} succeeded`, async trx => {
    await driven.flush(trx);
    await driven.ending.work?.(trx);
  });
  return 'succeeded';
}

async function noteUndoing({ services, row, changed }: Drive, problem: Problem): Promise<void> {
  await services.db.write(trx =>
    trx
      .updateTable('operations')
      .set({ state: 'undoing', error_json: JSON.stringify(problem) })
      .where('id', '=', row.id)
      .execute(),
  );
  changed();
}

/** The one transaction that ends an operation: its state, its locks and reservations, its last changes and the event. */
async function end(
  { services, locks, row }: Drive,
  state: OperationState,
  set: Partial<Row<'operations'>>,
  message: string,
  work: (trx: Trx) => Promise<void>,
): Promise<void> {
  await services.db.write(async trx => {
    await work(trx);
    await trx
      .updateTable('operations')
      .set({ ...set, state, finished_at: new Date().toISOString(), finished_elapsed: elapsedNow() })
      .where('id', '=', row.id)
      .execute();
    await locks.release(trx, row.id);
    await trx.deleteFrom('reservations').where('operation_id', '=', row.id).execute();
    await services.events.append(
      trx,
      `operation.${state}`,
      { kind: 'operation', id: row.id },
      message,
      row.asked_by ?? undefined,
    );
  });
  locks.released();
}
