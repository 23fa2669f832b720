import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { PoolRef, StoreRef } from '../../shared/commands/refs.ts';
import { CisternError } from '../../shared/errors.ts';
import type { BackupStore } from '../backup/driver.ts';
import { pacedStore } from '../backup/paced.ts';
import type { TaskContext } from '../commands/handler.ts';
import type { AgentConfig } from '../config.ts';
import { makeTaskFolder } from '../host/task-folder.ts';
import type { Pool } from '../primary/driver.ts';
import type { TaskPaces } from './paces.ts';
import type { TaskInput } from './protocol.ts';

export interface ContextOptions {
  taskId: string;
  config: AgentConfig;
  spoolDir: string;
  signal: AbortSignal;
  input: TaskInput | undefined;
  /** Of the backup storages that the task moves bytes to and from. */
  paces: TaskPaces;
  progress: TaskContext['progress'];
  pool(ref: PoolRef, signal: AbortSignal): Promise<Pool>;
  openStore(ref: StoreRef, signal: AbortSignal): Promise<BackupStore>;
}

const CLOSE_SECONDS = 5;

/** What a handler gets. Disposing of it closes the task's backup storages and removes its spool folder. */
export function createContext(options: ContextOptions): TaskContext & AsyncDisposable {
  const { taskId, config, signal } = options;
  const folder = join(options.spoolDir, taskId);
  const stores: BackupStore[] = [];
  let spooled = options.input !== undefined;

  async function openStore(ref: StoreRef): Promise<BackupStore> {
    const store = await options.openStore(ref, signal);
    stores.push(store);
    return pacedStore(store, options.paces.of(ref.id));
  }

  return {
    taskId,
    config,
    signal,
    progress: options.progress,
    pool: ref => options.pool(ref, signal),
    store: openStore,
    async spool() {
      spooled = true;
      await makeTaskFolder(folder);
      return folder;
    },
    // a task with an upload is not started before its bytes are there
    async input() {
      if (!options.input) throw new CisternError('WRONG_STATE', `task ${taskId}: no bytes were sent for it`);
      return options.input;
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(stores.map(store => closeStore(store, taskId)));
      if (spooled) await rm(folder, { recursive: true, force: true });
    },
  };
}

/** A storage that does not let go must not hold up the task's end: its session dies with the worker at the latest. */
async function closeStore(store: BackupStore, taskId: string): Promise<void> {
  const timer = Promise.withResolvers<void>();
  const timeout = setTimeout(() => timer.reject(new Error(`not closed within ${CLOSE_SECONDS} s`)), CLOSE_SECONDS * 1000);
  try {
    await Promise.race([store.close(), timer.promise]);
  } catch (error) {
    process.stderr.write(`task ${taskId}: closing a backup storage: ${(error as Error).message}\n`);
  } finally {
    clearTimeout(timeout);
  }
}
