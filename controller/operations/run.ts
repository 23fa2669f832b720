import { setTimeout as delay } from 'node:timers/promises';
import { CisternError, type ErrorCode } from '../../shared/errors.ts';
import { derivedId } from '../../shared/id.ts';
import type { TaskReport } from '../../shared/task.ts';
import type { Trx } from '../db/database.ts';
import type { Services } from '../services.ts';
import { leaveBehind } from './garbage.ts';
import { type Live, writeStep } from './journal.ts';
import type { Locks } from './locks.ts';
import type { Run } from './workflow.ts';

/** A worker or an agent that died under a task: the same command is sent again as a new task. */
const RESEND: readonly ErrorCode[] = ['TASK_INTERRUPTED', 'WORKER_DIED'];
const ATTEMPTS = 3;
/** While undoing, a host that is away is not waited for long: what it holds is removed later (`garbage.ts`). */
const UNDO_PATIENCE_SECONDS = 5;
/** An undo that fails for a passing reason, such as a full database, is tried for as long as this. */
const UNDO_HOURS = 24;

/** A Run and what the engine needs to drive it. */
export interface Driven {
  run: Run;
  undoAll(signal: AbortSignal): Promise<void>;
  ending: { output: Record<string, unknown>; work?: (trx: Trx) => Promise<void> };
  /** Writes what is known but not journalled yet, as a part of another write. */
  flush(trx: Trx): Promise<void>;
}

export interface RunOptions {
  id: string;
  services: Services;
  locks: Locks;
  live: Live;
  changed: () => void;
  /** Results of the steps that were done before. */
  done: Map<string, unknown>;
  signal: AbortSignal;
  /** An earlier process has worked on it, and may have sent tasks that are not journalled. */
  resumed: boolean;
  /** Set where the operation was already being undone: no new step is begun, this is thrown at the first one. */
  replayed: unknown;
}

export function createRun(options: RunOptions): Driven {
  const { id, services, live, done } = options;
  let signal = options.signal;
  let undoing = '';
  /** Tries of the undo step under way: each sends its tasks anew, as the agent would answer the old ids with the old failure. */
  let tries = 0;
  const undos: { name: string; work: () => Promise<void> }[] = [];
  const ending: Driven['ending'] = { output: {} };

  const enter = (name: string): string => {
    if (!undoing && options.replayed !== undefined) throw options.replayed;
    signal.throwIfAborted();
    return begin(name);
  };
  const begin = (name: string): string => {
    live.step = { name, startedAt: new Date().toISOString() };
    live.progress = null;
    options.changed();
    return live.step.startedAt;
  };
  const leave = () => {
    live.step = null;
    options.changed();
  };
  const key = (name: string) => undoing + name;
  /**
   * Results of tasks, which go into the journal with the next write: until then the agent has them under the task's id, where a
   * controller that follows this one finds them. Most operations end right after their task, and so sync once less.
   */
  let pending: { name: string; startedAt: string; result: unknown }[] = [];
  const flush = async (trx: Trx): Promise<void> => {
    for (const { name, startedAt, result } of pending) await writeStep(trx, id, name, startedAt, result);
  };
  const write = async <T>(work: (trx: Trx) => Promise<T>): Promise<T> => {
    const flushed = pending.length;
    const result = await services.db.write(async trx => {
      await flush(trx);
      return work(trx);
    });
    pending = pending.slice(flushed);
    return result;
  };

  /**
   * Sees to it that a task runs no more, and returns its last report. Where its host does not say so, the task is left for
   * `sweepGarbage` to end before that removes anything which the task may still be making.
   */
  const halt = async (hostId: string, taskId: string): Promise<TaskReport | undefined> => {
    try {
      return await services.fleet.stop(hostId, taskId);
    } catch (error) {
      services.log.warn({ operation: id, err: error, taskId }, 'a task of an operation that ends was not confirmed as ended');
      if (!undoing) await leaveBehind(services, hostId, { kind: 'task', taskId });
      return undefined;
    }
  };

  const run: Run = {
    id,
    services,
    signal: () => signal,
    async lock(...names) {
      if (!undoing && options.replayed !== undefined) return;
      await options.locks.take(id, names, signal, () => {
        if (live.step === null) enter('wait for another operation');
      });
      leave();
    },
    async step(label, work) {
      const name = key(label);
      if (done.has(name)) return done.get(name) as never;
      const startedAt = enter(name);
      const result = await work();
      await write(trx => writeStep(trx, id, name, startedAt, result));
      done.set(name, result);
      leave();
      return result;
    },
    async tx(label, work) {
      const name = key(label);
      if (done.has(name)) return done.get(name) as never;
      // what notes the effect of a task that was done is not held back by a cancel that came meanwhile
      const startedAt = pending.length > 0 ? begin(name) : enter(name);
      const result = await write(async trx => {
        const value = await work(trx);
        await writeStep(trx, id, name, startedAt, value);
        return value;
      });
      done.set(name, result);
      leave();
      return result;
    },
    async task(label, hostId, kind, input, { resend } = { resend: true }) {
      const name = key(label);
      if (done.has(name)) return done.get(name) as never;
      if (pending.length > 0) await write(async () => {});
      const keep = <T>(startedAt: string, result: T): T => {
        pending.push({ name, startedAt, result });
        done.set(name, result);
        leave();
        return result;
      };
      const idOf = (attempt: number): string => derivedId(id, `${name}#${attempt}${tries > 0 ? `.${tries}` : ''}`);
      // an earlier controller may have sent this task before the operation was to be ended
      if (options.resumed && !undoing && (options.replayed !== undefined || signal.aborted) && !isShutdown(signal)) {
        for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
          const last = await halt(hostId, idOf(attempt));
          if (last?.state === 'succeeded') return keep(last.createdAt, last.output as never);
        }
      }
      for (let attempt = 1; ; attempt++) {
        const taskId = idOf(attempt);
        const startedAt = enter(name);
        try {
          const message = { kind, input: await input() } as never;
          const output = await services.fleet.run<typeof kind>(hostId, taskId, message, {
            signal,
            operation: id,
            ...(undoing && { patienceSeconds: UNDO_PATIENCE_SECONDS }),
            onProgress: progress => {
              live.progress = progress;
              options.changed();
            },
          });
          return keep(startedAt, output);
        } catch (error) {
          if (isShutdown(signal)) throw error;
          // cancelled, or its host did not answer any more: it must not go on while its work is undone
          const last = await halt(hostId, taskId);
          // too late: it was done, and what undoes it must see it as done
          if (last?.state === 'succeeded' && (signal.aborted || error instanceof CisternError))
            return keep(startedAt, last.output as never);
          const again = resend && error instanceof CisternError && RESEND.includes(error.code) && attempt < ATTEMPTS;
          if (signal.aborted || !again) throw error;
          services.log.info({ operation: id, task: taskId, code: error.code }, `${name} is sent again`);
        }
      }
    },
    undo(name, work) {
      undos.push({ name, work });
    },
    finish(output, work) {
      ending.output = output;
      ending.work = work;
    },
  };

  return {
    run,
    ending,
    flush,
    async undoAll(shutdown) {
      signal = shutdown;
      const deadline = performance.now() + UNDO_HOURS * 3600_000;
      for (const { name, work } of undos.reverse()) {
        const step = `undo ${name}`;
        if (done.has(step)) continue;
        undoing = `${step}: `;
        tries = 0;
        for (let pause = 500; ; pause = Math.min(pause * 2, 30_000)) {
          const startedAt = enter(step);
          try {
            await work();
            await write(trx => writeStep(trx, id, step, startedAt, undefined, 'undone'));
            break;
          } catch (error) {
            shutdown.throwIfAborted();
            const again = error instanceof CisternError && error.retryable && performance.now() < deadline;
            services.log.warn({ operation: id, err: error }, `${step} failed${again ? '; it will be tried again' : ''}`);
            if (!again) {
              await write(trx => writeStep(trx, id, step, startedAt, { error: (error as Error).message }, 'failed'));
              break;
            }
            await delay(pause, undefined, { signal: shutdown });
            tries++;
          }
        }
      }
      undoing = '';
    },
  };
}

/** The reason of signals that mean: this process stops, the operation goes on in the next one. */
export const SHUTDOWN = Symbol('the controller stops');
export const isShutdown = (signal: AbortSignal): boolean => signal.aborted && signal.reason === SHUTDOWN;
