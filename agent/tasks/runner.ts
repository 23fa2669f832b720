import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { CommandMessage } from '../../shared/commands/index.ts';
import { CisternError, toProblem } from '../../shared/errors.ts';
import type { Logger } from '../../shared/log.ts';
import { isFinal, type Paces, type TaskReport } from '../../shared/task.ts';
import type { AgentConfig } from '../config.ts';
import { workerOf, type TaskInput, type TaskResult } from '../worker/protocol.ts';
import { createWorkers } from '../worker/workers.ts';
import { createInputs, uploadOf } from './inputs.ts';
import { interrupted, type Outcome, type Registry, reportOf, type Task } from './registry.ts';

export interface RunnerOptions {
  config: AgentConfig;
  spoolDir: string;
  registry: Registry;
  log: Logger;
}

/** Brings tasks to the worker of their pool and their results back into the registry. */
export type Runner = ReturnType<typeof createRunner>;

export function createRunner({ config, spoolDir, registry, log }: RunnerOptions) {
  let stopping = false;
  const inputs = createInputs({ spoolDir, maxSize: config.maxImageSize, stallSeconds: config.stallSeconds });
  const workers = createWorkers({
    config,
    spoolDir,
    log,
    sweep: key => registry.unswept(key),
    swept: ids => registry.swept(ids),
    started: id => registry.started(registry.get(id)),
    progress: (id, progress) => registry.progress(registry.get(id), progress),
    ended: (id, result) => registry.finish(registry.get(id), outcomeOf(registry.get(id), result, stopping)),
    lost: (ids, how) => ids.forEach(id => void lose(registry.get(id), how)),
  });

  /** Its worker is gone: removes its spool folder, and has its pool cleaned when that is opened next. */
  async function lose(task: Task, how: string): Promise<void> {
    await clearSpool(task.id);
    const unswept = task.poolId !== null;
    if (task.cancelling || stopping) registry.finish(task, { ...outcomeOf(task, abandoned, stopping), unswept } as Outcome);
    else
      registry.finish(task, {
        state: 'failed',
        error: toProblem(new CisternError('WORKER_DIED', `${task.kind} (task ${task.id}): ${how}`)),
        unswept,
      });
  }

  async function clearSpool(id: string): Promise<void> {
    try {
      await rm(join(spoolDir, id), { recursive: true, force: true });
    } catch (error) {
      log.error({ err: error, task: id }, 'the spool folder of a task cannot be removed');
    }
  }

  function dispatch(task: Task, command: CommandMessage): void {
    const upload = uploadOf(command);
    const run = (input?: TaskInput): void =>
      workers.run(workerOf(command), { id: task.id, command, paces: task.paces, ...(input && { input }) });
    if (!upload) return run();
    inputs.expect({
      id: task.id,
      size: upload.size,
      progress: progress => registry.progress(task, progress),
      arrived: input => start(task, () => run(input)),
      failed: error => void inputs.drop(task.id).then(() => registry.finish(task, { state: 'failed', error: toProblem(error) })),
    });
  }

  /** A worker that cannot be started fails the task, not the agent. */
  function start(task: Task, run: () => void): void {
    try {
      run();
    } catch (error) {
      void clearSpool(task.id).then(() => registry.finish(task, { state: 'failed', error: toProblem(error) }));
    }
  }

  function setPaces(task: Task, paces: Paces): void {
    task.paces = { ...task.paces, ...paces };
    workers.pace(task.id, paces);
  }

  async function abandonInput(task: Task): Promise<boolean> {
    if (!(await inputs.drop(task.id))) return false;
    registry.finish(task, outcomeOf(task, abandoned, stopping));
    return true;
  }

  return {
    async submit(id: string, command: CommandMessage, paces: Paces = {}): Promise<TaskReport> {
      if (stopping) throw new CisternError('BUSY', 'the agent is stopping');
      const { task, isNew } = await registry.add(id, command);
      setPaces(task, paces);
      // its end may have been asked for while it was being written down
      if (isNew && (stopping || task.cancelling)) registry.finish(task, outcomeOf(task, abandoned, stopping));
      else if (isNew) start(task, () => dispatch(task, command));
      return reportOf(task);
    },
    /** TASK_UNKNOWN where there is none; nothing where it has ended. */
    setPaces(id: string, paces: Paces): TaskReport {
      const task = registry.get(id);
      setPaces(task, paces);
      return reportOf(task);
    },
    receive: inputs.receive,
    async cancel(id: string): Promise<TaskReport> {
      const task = registry.get(id);
      if (!isFinal(task.state) && !task.cancelling) {
        task.cancelling = true;
        if (!workers.cancel(id)) await abandonInput(task);
      }
      return reportOf(task);
    },
    workers,
    /** Takes no more tasks, interrupts those at work and ends the workers, by force after the deadline. */
    async stop(deadlineMs: number): Promise<void> {
      stopping = true;
      await Promise.all([...registry.all()].filter(task => inputs.waits(task.id)).map(abandonInput));
      await workers.stop(deadlineMs);
    },
  };
}

/** Stands for the result of a task that a cancel or a stop ended from outside. */
const abandoned: TaskResult = {
  ok: false,
  aborted: true,
  problem: toProblem(new CisternError('CANCELLED', 'ended from outside')),
};

/** What was cancelled by a person is cancelled; what the agent's own stop ended may be retried. */
function outcomeOf(task: Task, result: TaskResult, stopping: boolean): Outcome {
  if (result.ok) return { state: 'succeeded', output: result.output };
  if (!result.aborted) return { state: 'failed', error: result.problem };
  if (task.cancelling)
    return {
      state: 'cancelled',
      error: toProblem(new CisternError('CANCELLED', `${task.kind} (task ${task.id}) was cancelled`)),
    };
  if (stopping) return { state: 'failed', error: interrupted(task) };
  return { state: 'failed', error: result.problem };
}
