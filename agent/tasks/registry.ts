import { createHmac } from 'node:crypto';
import type { CommandMessage } from '../../shared/commands/index.ts';
import { CisternError, type Problem, toProblem } from '../../shared/errors.ts';
import type { Logger } from '../../shared/log.ts';
import { isFinal, type Paces, type Progress, type TaskReport } from '../../shared/task.ts';
import { poolOf } from '../worker/protocol.ts';
import type { Journal, TaskRecord } from './journal.ts';

/** A task in memory: its record and what is only known while it runs. */
export interface Task extends TaskRecord {
  progress: Progress | null;
  /** How fast it may go; said anew by the controller whenever that changes. */
  paces: Paces;
  /** Somebody asked for its end. */
  cancelling: boolean;
  /** Length of its final line in the journal, as a measure of what its report weighs. */
  bytes: number;
  /** When it came, in milliseconds of the monotonic clock. */
  since: number;
  /** When it ended, by the same clock; what an earlier run left counts as ended when this one began. */
  endedAt: number;
}

export type Outcome =
  { state: 'succeeded'; output: unknown } | { state: 'failed' | 'cancelled'; error: Problem; unswept?: boolean };

export interface RegistryOptions {
  journal: Journal;
  log: Logger;
  /** Key of the commands' fingerprints, so that the journal alone does not let anyone guess at passwords. */
  key: string;
  /** Told of every change: a task came, moved on, or ended. */
  changed(task: Task): void;
  /** Tasks that may be queued or running at once. */
  maxActive?: number;
}

const MAX_ACTIVE = 5000;
const KEEP_MS = 3600_000;
/** Far more than a controller that crashes can have under way: only those may it ask for again. About 5 KB each. */
const KEEP_COUNT = 4_000;
const KEEP_BYTES = 32 * 2 ** 20;

/** The tasks of this agent by id, at most 5000 at work and those that ended within the last hour (4,000 or 32 MiB at most). */
export type Registry = ReturnType<typeof createRegistry>;

export function createRegistry({ journal, log, key, changed, maxActive = MAX_ACTIVE }: RegistryOptions) {
  const tasks = new Map<string, Task>();
  /** Ids in the order in which they ended. */
  const ended = new Set<string>();
  let endedBytes = 0;

  journal.compactFrom(
    () => tasks.values(),
    () => tasks.size,
  );
  for (const record of journal.records) tasks.set(record.id, taskOf(record));
  for (const task of tasks.values()) {
    if (isFinal(task.state)) remember(task, JSON.stringify(recordOf(task)).length);
    else finish(task, { state: 'failed', error: interrupted(task), unswept: task.poolId !== null });
  }

  function remember(task: Task, bytes: number): void {
    task.bytes = bytes;
    task.endedAt = performance.now();
    endedBytes += bytes;
    ended.add(task.id);
  }

  /** Writes what memory knows already: a full disk must not hide work that is done. Returns the line's length. */
  function note(line: Parameters<Journal['write']>[0]): number {
    const { bytes, written } = journal.write(line);
    written.catch((error: unknown) => log.error({ err: error }, 'after a restart these tasks count as interrupted'));
    return bytes;
  }

  function finish(task: Task, outcome: Outcome): void {
    if (isFinal(task.state)) return;
    task.state = outcome.state;
    task.finishedAt = new Date().toISOString();
    if (outcome.state === 'succeeded') task.output = outcome.output;
    else Object.assign(task, { error: outcome.error, unswept: outcome.unswept ?? false });
    remember(task, note(recordOf(task)));
    changed(task);
    evict();
  }

  /** Forgets the oldest ended tasks. One whose leavings are still in a pool stays four times as long in number. */
  function evict(): void {
    const oldest = performance.now() - KEEP_MS;
    for (const id of ended) {
      const task = tasks.get(id)!;
      const full = ended.size > KEEP_COUNT || endedBytes > KEEP_BYTES;
      if (!full && task.endedAt > oldest) return;
      if (task.unswept && ended.size < 4 * KEEP_COUNT) continue;
      ended.delete(id);
      tasks.delete(id);
      endedBytes -= task.bytes;
    }
  }

  function update(ids: string[], line: { acked: string[] } | { swept: string[] }, change: Partial<Task>): void {
    const known = ids.map(id => tasks.get(id)).filter(task => task !== undefined);
    for (const task of known) Object.assign(task, change);
    if (known.length > 0) note(line);
  }

  return {
    /** TASK_UNKNOWN where there is none. */
    get(id: string): Task {
      const task = tasks.get(id);
      if (!task)
        throw new CisternError(
          'TASK_UNKNOWN',
          `task ${id}: this agent has no such task; it never came, or ended more than an hour ago`,
        );
      return task;
    },
    find: (id: string): Task | undefined => tasks.get(id),
    all: (): Iterable<Task> => tasks.values(),
    active: (): number => tasks.size - ended.size,
    /** A new task, once it is in the journal, or the one that came with this id before. TASK_ID_REUSED for another command, BUSY when too many are at work. */
    async add(id: string, command: CommandMessage): Promise<{ task: Task; isNew: boolean }> {
      const fingerprint = fingerprintOf(key, command);
      const known = tasks.get(id);
      if (known && known.fingerprint !== fingerprint)
        throw new CisternError('TASK_ID_REUSED', `task ${id} came before as another command (${known.kind})`);
      if (known) return { task: known, isNew: false };
      if (tasks.size - ended.size >= maxActive)
        throw new CisternError('BUSY', `${maxActive} tasks are queued or running on this agent`);
      const task = taskOf({
        id,
        kind: command.kind,
        fingerprint,
        poolId: poolOf(command),
        state: 'queued',
        error: null,
        createdAt: new Date().toISOString(),
        finishedAt: null,
        acked: false,
        unswept: false,
      });
      tasks.set(id, task);
      try {
        await journal.write(recordOf(task)).written;
      } catch (error) {
        tasks.delete(id);
        throw error;
      }
      changed(task);
      return { task, isNew: true };
    },
    /** Not journalled: queued or running, a restart interrupts both. */
    started(task: Task): void {
      if (task.state !== 'queued') return;
      task.state = 'running';
      changed(task);
    },
    progress(task: Task, progress: Progress): void {
      if (isFinal(task.state)) return;
      task.progress = progress;
      changed(task);
    },
    finish,
    /** The controller has these final reports. */
    acked: (ids: string[]): void => update(ids, { acked: ids }, { acked: true }),
    /** What these tasks left in their pool is gone. */
    swept: (ids: string[]): void => update(ids, { swept: ids }, { unswept: false }),
    /** Dead tasks that may have left something in this pool. */
    unswept: (poolId: string): string[] => [...ended].filter(id => tasks.get(id)!.unswept && tasks.get(id)!.poolId === poolId),
  };
}

/** The task as it travels. */
export function reportOf(task: Task): TaskReport {
  const { id, kind, state, progress, error, createdAt, finishedAt } = task;
  return { id, kind, state, progress, ...(state === 'succeeded' ? { output: task.output } : {}), error, createdAt, finishedAt };
}

export const interrupted = (task: { id: string; kind: string }): Problem =>
  toProblem(
    new CisternError('TASK_INTERRUPTED', `${task.kind} (task ${task.id}): the agent stopped while it was queued or running`),
  );

const taskOf = (record: TaskRecord): Task => {
  const age = Math.max(0, Date.now() - Date.parse(record.createdAt));
  return { ...record, progress: null, paces: {}, cancelling: false, bytes: 0, endedAt: 0, since: performance.now() - age };
};

function recordOf({
  id,
  kind,
  fingerprint,
  poolId,
  state,
  output,
  error,
  createdAt,
  finishedAt,
  acked,
  unswept,
}: Task): TaskRecord {
  return {
    id,
    kind,
    fingerprint,
    poolId,
    state,
    ...(output === undefined ? {} : { output }),
    error,
    createdAt,
    finishedAt,
    acked,
    unswept,
  };
}

/** Of the command with its keys in order, as the same settings may come in another one. */
function fingerprintOf(key: string, command: CommandMessage): string {
  const sorted = (_: string, value: unknown): unknown =>
    value !== null && typeof value === 'object' && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value;
  return createHmac('sha256', key).update(JSON.stringify(command, sorted)).digest('hex');
}
