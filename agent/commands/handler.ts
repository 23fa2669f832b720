import type { CommandInput, CommandKind, CommandOutput } from '../../shared/commands/index.ts';
import type { PoolRef, StoreRef } from '../../shared/commands/refs.ts';
import type { BackupStore } from '../backup/driver.ts';
import type { AgentConfig } from '../config.ts';
import type { Pool } from '../primary/driver.ts';

/** What a command's handler is given besides its input. It runs in a worker process. */
export interface TaskContext {
  taskId: string;
  config: AgentConfig;
  /** Aborted on cancel: stop, clean up, and let the AbortError (or CANCELLED) through. */
  signal: AbortSignal;
  /** Called as often as convenient; it is throttled, and rate and ETA are worked out by the receiver. */
  progress(stage: string, done: number, total: number | null, unit?: 'bytes' | 'items' | 'percent'): void;
  /** The pool, connected (never initialised by this). Stays open for later tasks. */
  pool(ref: PoolRef): Promise<Pool>;
  /** A backup storage, opened for this task and closed when it ends. */
  store(ref: StoreRef): Promise<BackupStore>;
  /** A folder on the host's own disk for this task; removed when it ends. */
  spool(): Promise<string>;
  /** The bytes of `PUT /v1/tasks/:id/input` as a file in the spool, once they are all there. Waits, with a deadline. */
  input(): Promise<{ path: string; size: number; sha256: string }>;
}

export type Handler<K extends CommandKind> = (input: CommandInput<K>, ctx: TaskContext) => Promise<CommandOutput<K>>;
export type Handlers = { [K in CommandKind]: Handler<K> };
