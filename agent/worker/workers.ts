import { CisternError } from '../../shared/errors.ts';
import type { Logger } from '../../shared/log.ts';
import type { Paces, Progress } from '../../shared/task.ts';
import type { AgentConfig } from '../config.ts';
import { type Child, spawnChild } from './child.ts';
import type { FromWorker, TaskResult, TaskRun } from './protocol.ts';

export interface WorkersOptions {
  config: AgentConfig;
  spoolDir: string;
  log: Logger;
  /** Dead tasks to be cleaned up after by the worker of this pool. */
  sweep(key: string): string[];
  started(id: string): void;
  progress(id: string, progress: Progress): void;
  ended(id: string, result: TaskResult): void;
  /** The worker died, or was ended because it did not react to a cancel, with these tasks in it. */
  lost(ids: string[], how: string): void;
  swept(ids: string[]): void;
}

interface Worker {
  key: string;
  child: Child;
  /** Its tasks; the time of the cancel where there was one, else null. */
  tasks: Map<string, number | null>;
  idleSince: number;
  ending: boolean;
}

const MAX_WORKERS = 64;
const IDLE_MS = 300_000;
const CANCEL_GRACE_MS = 15_000;
const TICK_MS = 1000;

/** One process per storage pool (and one for the host's own work), started when it is needed, so that a pool that hangs or kills its process hurts only its own tasks. */
export type Workers = ReturnType<typeof createWorkers>;

export function createWorkers(options: WorkersOptions) {
  const { log } = options;
  /** Workers that take tasks. */
  const byKey = new Map<string, Worker>();
  /** Every worker that lives, those that are ending too. */
  const alive = new Set<Worker>();
  const byTask = new Map<string, Worker>();
  let deaths = 0;
  let stopping = false;
  let whenEmpty: (() => void) | undefined;

  function start(key: string): Worker {
    if (byKey.size >= MAX_WORKERS) endIdle(0, 1);
    if (byKey.size >= MAX_WORKERS) throw new CisternError('BUSY', `${MAX_WORKERS} pools are at work on this host at once`);
    const tasks = new Map<string, number | null>();
    const init = { type: 'init', config: options.config, spoolDir: options.spoolDir, sweep: options.sweep(key) } as const;
    const child = spawnChild(key, init, { message: message => take(worker, message), gone: how => bury(worker, how) }, log);
    const worker: Worker = { key, child, tasks, idleSince: performance.now(), ending: false };
    byKey.set(key, worker);
    alive.add(worker);
    log.debug({ worker: key, pid: child.pid }, 'worker started');
    return worker;
  }

  function take(worker: Worker, message: FromWorker): void {
    if (message.type === 'swept') return options.swept(message.ids);
    if (!worker.tasks.has(message.id)) return;
    if (message.type === 'started') return options.started(message.id);
    if (message.type === 'progress') return options.progress(message.id, message.progress);
    forget(worker, message.id);
    options.ended(message.id, message.result);
  }

  function forget(worker: Worker, id: string): void {
    worker.tasks.delete(id);
    byTask.delete(id);
    if (worker.tasks.size > 0) return;
    worker.idleSince = performance.now();
    if (stopping) end(worker);
  }

  function bury(worker: Worker, how: string): void {
    alive.delete(worker);
    if (byKey.get(worker.key) === worker) byKey.delete(worker.key);
    const lost = [...worker.tasks.keys()];
    for (const id of lost) byTask.delete(id);
    worker.tasks.clear();
    if (!worker.ending) {
      deaths++;
      log.error({ worker: worker.key, pid: worker.child.pid, tasks: lost }, `a worker ${how}`);
    }
    if (lost.length > 0) options.lost(lost, `the worker process ${worker.child.pid} ${how}`);
    if (alive.size === 0) whenEmpty?.();
  }

  function end(worker: Worker): void {
    worker.ending = true;
    byKey.delete(worker.key);
    worker.child.end();
  }

  function endIdle(idleMs: number, atMost = Infinity): void {
    const idle = [...byKey.values()]
      .filter(w => w.tasks.size === 0 && performance.now() - w.idleSince >= idleMs)
      .sort((a, b) => a.idleSince - b.idleSince);
    for (const worker of idle.slice(0, atMost)) end(worker);
  }

  /** A worker whose tasks are all cancelled and do not end is of no use to anybody. */
  function killStuck(): void {
    for (const worker of byKey.values()) {
      const times = [...worker.tasks.values()];
      if (times.length === 0 || times.some(at => at === null || performance.now() - at < CANCEL_GRACE_MS)) continue;
      log.warn({ worker: worker.key, tasks: [...worker.tasks.keys()] }, 'a worker does not react to cancel; it is ended');
      byKey.delete(worker.key);
      worker.child.kill();
    }
  }

  const tick = setInterval(() => {
    killStuck();
    endIdle(IDLE_MS);
  }, TICK_MS);
  tick.unref();

  return {
    run(key: string, task: TaskRun): void {
      const worker = byKey.get(key) ?? start(key);
      worker.tasks.set(task.id, null);
      byTask.set(task.id, worker);
      worker.child.send({ type: 'run', ...task });
    },
    /** How fast a task may go from now on; nothing where no worker has it. */
    pace: (id: string, paces: Paces): void => byTask.get(id)?.child.send({ type: 'pace', id, paces }),
    /** False where no worker has this task. */
    cancel(id: string): boolean {
      const worker = byTask.get(id);
      if (!worker) return false;
      if (worker.tasks.get(id) === null) worker.tasks.set(id, performance.now());
      worker.child.send({ type: 'cancel', id });
      return true;
    },
    pids: (): { key: string; pid: number | undefined }[] => [...alive].map(w => ({ key: w.key, pid: w.child.pid })),
    deaths: (): number => deaths,
    /** Cancels everything and waits; what still runs after `deadlineMs` is ended by force. */
    async stop(deadlineMs: number): Promise<void> {
      clearInterval(tick);
      stopping = true;
      const empty = Promise.withResolvers<void>();
      whenEmpty = empty.resolve;
      if (alive.size === 0) return;
      for (const worker of alive) {
        for (const id of worker.tasks.keys()) worker.child.send({ type: 'cancel', id });
        if (worker.tasks.size === 0) end(worker);
      }
      const force = setTimeout(() => {
        for (const worker of alive) {
          worker.ending = true;
          worker.child.kill();
        }
      }, deadlineMs);
      await empty.promise;
      clearTimeout(force);
    },
  };
}
