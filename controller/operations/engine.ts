import { EventEmitter } from 'node:events';
import { CisternError } from '../../shared/errors.ts';
import type { Caller } from '../../shared/http/auth.ts';
import type { Operation } from '../../shared/model.ts';
import type { Row } from '../db/schema.ts';
import type { Services } from '../services.ts';
import { includes } from '../tokens.ts';
import { acceptOperation, type StartOptions } from './accept.ts';
import { driveOperation } from './drive.ts';
import { isEnded, type Live, readSteps, STEP_ORDER, toOperation } from './journal.ts';
import { createLocks } from './locks.ts';
import { SHUTDOWN } from './run.ts';
import type { Workflow } from './workflow.ts';

/** Operations under way at once; more wait in a queue, and past that are refused. */
const RUNNING = 256;
const QUEUED = 10_000;
/** Pause before an operation is taken up again whose progress could not be written to the database. */
const RETRY_MS = 5000;

/** Runs durable operations: accepts, journals, cancels, undoes, and takes up again what an earlier process left. */
export interface Engine {
  start<R, P>(workflow: Workflow<R, P>, request: R, options: StartOptions): Promise<Operation>;
  get(id: string): Promise<Operation>;
  list(rows: Row<'operations'>[]): Promise<Operation[]>;
  /** The operation once it has ended, or as it is after `seconds`. */
  wait(id: string, seconds: number, signal?: AbortSignal): Promise<Operation>;
  /** FORBIDDEN where the caller's role is less than that of who started it. */
  cancel(id: string, caller: Pick<Caller, 'name' | 'role'>): Promise<Operation>;
  retry(id: string, caller: Caller, options: { idempotencyKey?: string }): Promise<Operation>;
  /** Calls `listener` at changes of an operation's state, step or progress; returns how to stop. */
  watch(id: string, listener: () => void): () => void;
  /** Takes up the operations that an earlier process left. */
  resume(): Promise<void>;
  /** Leaves all operations as they are now, begun or not; those started later run. */
  freeze(): void;
  /** Stops without ending operations: they go on when a controller starts again. */
  stop(): Promise<void>;
}

interface Running {
  live: Live;
  abort: AbortController;
  ended: Promise<void>;
}

const CANCELLED = () => new CisternError('CANCELLED', 'the operation was cancelled');

/** An operation is in the hands of those who could have started it: no operator cancels or repeats what an admin did. */
function mayChange(row: Row<'operations'>, caller: Pick<Caller, 'name' | 'role'>): void {
  if (includes(caller.role, row.role)) return;
  throw new CisternError(
    'FORBIDDEN',
    `changing a ${row.kind} operation needs the role ${row.role}; the token "${caller.name}" has the role ${caller.role}`,
  );
}

export function createEngine(services: Services, workflows: readonly Workflow<never, never>[]): Engine {
  const { db, events, metrics, log } = services;
  const locks = createLocks(db);
  const byKind = new Map(workflows.map(workflow => [workflow.kind, workflow]));
  const running = new Map<string, Running>();
  const queue: Row<'operations'>[] = [];
  const shutdown = new AbortController();
  let frozen = new AbortController();
  const changes = new EventEmitter();
  changes.setMaxListeners(0);

  const find = async (id: string): Promise<Row<'operations'>> => {
    const row = await db.read.selectFrom('operations').selectAll().where('id', '=', id).executeTakeFirst();
    if (!row) throw new CisternError('NOT_FOUND', `operation ${id} is not known`);
    return row;
  };
  const get = async (id: string): Promise<Operation> =>
    toOperation(await find(id), await readSteps(db.read, id), running.get(id)?.live);

  const pump = () => {
    while (running.size < RUNNING && !shutdown.signal.aborted) {
      const row = queue.shift();
      if (!row) break;
      launch(row);
    }
    metrics.operationsQueued.set(queue.length);
  };

  const launch = (row: Row<'operations'>) => {
    const live: Live = { progress: null, step: null };
    const began = performance.now();
    const abort = new AbortController();
    if (row.state === 'cancelling') abort.abort(CANCELLED());
    metrics.operationsRunning.inc({ kind: row.kind });
    const ended = drive(row, live, abort.signal, began)
      .catch(error => {
        log.error({ operation: row.id, err: error }, 'an operation could not be driven to its end; it is taken up again soon');
        // a damaged database takes nothing: the operation goes on after it was put right, when the controller starts again
        if (!(error instanceof CisternError && error.code === 'DATABASE_DAMAGED')) takeUpLater(row.id);
      })
      .finally(() => {
        running.delete(row.id);
        metrics.operationsRunning.dec({ kind: row.kind });
        changes.emit(row.id);
        pump();
      });
    running.set(row.id, { live, abort, ended });
  };

  /** What cannot even be written down, as on a full disk, is tried again until it can; a cancel meanwhile is seen in the row. */
  const takeUpLater = (id: string) => {
    setTimeout(() => {
      if (shutdown.signal.aborted || services.recovery.current()) return;
      find(id).then(
        row => isEnded(row.state) || enqueue(row),
        () => takeUpLater(id),
      );
    }, RETRY_MS).unref();
  };

  const drive = async (row: Row<'operations'>, live: Live, cancelled: AbortSignal, began: number): Promise<void> => {
    const workflow = byKind.get(row.kind);
    if (!workflow)
      throw new CisternError('INTERNAL', `operation ${row.id} is of the kind ${row.kind}, which this version does not know`);
    const stopped = AbortSignal.any([shutdown.signal, frozen.signal]);
    const changed = () => void changes.emit(row.id);
    const state = await driveOperation({ services, locks, workflow, row, live, cancelled, stopped, changed });
    if (state === undefined) return;
    metrics.operations.inc({ kind: row.kind, state });
    metrics.operationSeconds.observe({ kind: row.kind }, (performance.now() - began) / 1000);
  };

  const enqueue = (row: Row<'operations'>) => {
    queue.push(row);
    pump();
  };

  const engine: Engine = {
    get,
    async list(rows) {
      if (rows.length === 0) return [];
      const ids = rows.map(row => row.id);
      const steps = await db.read.selectFrom('steps').selectAll().where('operation_id', 'in', ids).orderBy(STEP_ORDER).execute();
      const byOperation = Map.groupBy(steps, step => step.operation_id);
      return rows.map(row => toOperation(row, byOperation.get(row.id) ?? [], running.get(row.id)?.live));
    },
    async start(workflow, request, options) {
      if (shutdown.signal.aborted) throw new CisternError('BUSY', 'the controller is stopping');
      if (queue.length >= QUEUED) throw new CisternError('BUSY', `${queue.length} operations wait already`);
      const { row, isNew } = await acceptOperation(services, workflow, request, options);
      if (!isNew) return get(row.id);
      enqueue(row);
      return toOperation({ ...row, state: 'running' }, [], running.get(row.id)?.live);
    },
    wait(id, seconds, signal) {
      return new Promise((resolve, reject) => {
        let settled = false;
        const finish = () => {
          if (settled) return;
          settled = true;
          clearTimeout(timer);
          unwatch();
          signal?.removeEventListener('abort', finish);
          get(id).then(resolve, reject);
        };
        const check = () => {
          if (!running.has(id) && !queue.some(row => row.id === id)) finish();
        };
        const timer = setTimeout(finish, seconds * 1000);
        const unwatch = engine.watch(id, check);
        signal?.addEventListener('abort', finish, { once: true });
        check();
      });
    },
    async cancel(id, caller) {
      const row = await find(id);
      mayChange(row, caller);
      if (isEnded(row.state)) throw new CisternError('WRONG_STATE', `operation ${id} has ended already: it is ${row.state}`);
      if (row.state === 'running' || row.state === 'queued') {
        const changed = await db.write(async trx => {
          const { numUpdatedRows } = await trx
            .updateTable('operations')
            .set({ state: 'cancelling' })
            .where('id', '=', id)
            .where('state', 'in', ['running', 'queued'])
            .executeTakeFirst();
          if (numUpdatedRows === 0n) return false;
          const words = `${row.kind} is to be cancelled`;
          await events.append(trx, 'operation.cancelling', { kind: 'operation', id }, words, caller.name);
          return true;
        });
        if (changed) {
          const waiting = queue.find(other => other.id === id);
          if (waiting) waiting.state = 'cancelling';
          running.get(id)?.abort.abort(CANCELLED());
        }
      }
      return get(id);
    },
    async retry(id, caller, options) {
      const row = await find(id);
      mayChange(row, caller);
      if (row.state !== 'failed' && row.state !== 'cancelled')
        throw new CisternError('WRONG_STATE', `operation ${id} is ${row.state}; only a failed or cancelled one can be retried`);
      const workflow = byKind.get(row.kind) as Workflow<unknown, unknown> | undefined;
      if (!workflow) throw new CisternError('WRONG_STATE', `this version does not know operations of the kind ${row.kind}`);
      return engine.start(workflow, services.secrets.open<unknown>(row.request_sealed, `operations.request_sealed/${id}`), {
        ...options,
        retryOf: id,
        shown: JSON.parse(row.input_json) as unknown,
        by: caller.name,
        role: row.role,
      });
    },
    watch(id, listener) {
      changes.on(id, listener);
      return () => changes.off(id, listener);
    },
    async resume() {
      const rows = await db.read.selectFrom('operations').selectAll().where('finished_at', 'is', null).orderBy('id').execute();
      for (const row of rows) enqueue(row);
      if (rows.length > 0) log.info({ operations: rows.length }, 'operations of an earlier run are taken up again');
    },
    freeze() {
      queue.length = 0;
      frozen.abort(SHUTDOWN);
      frozen = new AbortController();
    },
    async stop() {
      shutdown.abort(SHUTDOWN);
      await Promise.allSettled([...running.values()].map(one => one.ended));
    },
  };
  return engine;
}
