import type { CommandMessage } from '../../shared/commands/index.ts';
import type { Problem } from '../../shared/errors.ts';
import type { Paces, Progress } from '../../shared/task.ts';
import type { AgentConfig } from '../config.ts';

/** The bytes that came for a task: a file in its spool folder. */
export interface TaskInput {
  path: string;
  size: number;
  sha256: string;
}

export interface InitWorker {
  type: 'init';
  config: AgentConfig;
  spoolDir: string;
  /** Dead tasks whose leavings are removed when the pool is opened. */
  sweep: string[];
}

/** A task as its worker gets it. */
export interface TaskRun {
  id: string;
  command: CommandMessage;
  paces: Paces;
  input?: TaskInput;
}

/** What the agent says to a worker. The first message is `init`. */
export type ToWorker =
  InitWorker | ({ type: 'run' } & TaskRun) | { type: 'pace'; id: string; paces: Paces } | { type: 'cancel'; id: string };

/** How a task ended in its worker; `aborted`: after a cancel, whatever error came of it. */
export type TaskResult = { ok: true; output: unknown } | { ok: false; problem: Problem; aborted: boolean };

/** What a worker says. */
export type FromWorker =
  | { type: 'started'; id: string }
  | { type: 'progress'; id: string; progress: Progress }
  | { type: 'ended'; id: string; result: TaskResult }
  | { type: 'swept'; ids: string[] };

/** Key of the worker for commands that touch no pool. */
export const HOST_WORKER = 'host';

/** Key of the worker for a command: copies out of a pool have one of their own, so that a pool that hangs holds up no other one. */
export const workerOf = (command: CommandMessage): string =>
  command.kind === 'volume.copy' ? `copies of ${command.input.from.id}` : (poolOf(command) ?? HOST_WORKER);

/** The pool that a command works on alone; null for work that touches none. */
export function poolOf(command: CommandMessage): string | null {
  const input: object = command.input;
  return 'pool' in input ? (input.pool as { id: string }).id : null;
}
