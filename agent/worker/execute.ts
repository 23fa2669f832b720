import { mkdirSync } from 'node:fs';
import type { CommandKind, CommandMessage } from '../../shared/commands/index.ts';
import { CisternError, type ErrorCode, toProblem } from '../../shared/errors.ts';
import type { Progress } from '../../shared/task.ts';
import type { Handlers } from '../commands/handler.ts';
import type { AgentConfig } from '../config.ts';
import { createContext } from './context.ts';
import { createLimiter } from './limiter.ts';
import type { TaskPaces } from './paces.ts';
import { createPools } from './pools.ts';
import { createMeter } from './progress.ts';
import { poolOf, type TaskInput, type TaskResult } from './protocol.ts';

export interface Execution {
  id: string;
  command: CommandMessage;
  input: TaskInput | undefined;
  paces: TaskPaces;
  signal: AbortSignal;
  started(): void;
  progress(progress: Progress): void;
}

export interface ExecutorOptions {
  config: AgentConfig;
  spoolDir: string;
  /** Dead tasks whose leavings are removed when their pool, the only one of this worker, is opened. */
  sweep: string[];
  swept(ids: string[]): void;
}

/** Commands that read and write whole images: a few at once fill disk and network. */
const HEAVY: ReadonlySet<CommandKind> = new Set<CommandKind>([
  'image.import',
  'cache.fill',
  'cache.verify',
  'image.verify',
  'image.copy',
  'volume.copy',
  'volume.upload',
]);
const HEAVY_AT_ONCE = 4;
const LIGHT_AT_ONCE = 64;
/** Errors after which the pool is opened anew, as the mount under it may be another one or gone. */
const POOL_ERRORS: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'POOL_IDENTITY',
  'POOL_UNAVAILABLE',
  'POOL_IO_ERROR',
  'IO_ERROR',
]);

/** Carries out commands in this process. Drivers and handlers are imported when first needed, so that a worker holds only what it uses. */
export function createExecutor({
  config,
  spoolDir,
  sweep,
  swept,
}: ExecutorOptions): (execution: Execution) => Promise<TaskResult> {
  const heavy = createLimiter(HEAVY_AT_ONCE);
  const light = createLimiter(LIGHT_AT_ONCE);
  let leavings = [...sweep];
  let fresh = true;
  /** The pool of this worker, if any. */
  let mine: string | null = null;
  mkdirSync(spoolDir, { recursive: true, mode: 0o700 });

  const pools = createPools({
    mountDir: config.mountDir,
    find: async ref => (await import('../commands/pool-driver.ts')).poolDriver(ref),
    async opened(pool, id) {
      if (id !== mine) return; // another worker may be at work in it
      const everything = fresh && pool.sweepAll !== undefined;
      fresh = false;
      if (leavings.length === 0 && !everything) return;
      const ids = leavings;
      leavings = [];
      try {
        await (everything ? pool.sweepAll!() : pool.sweep(ids));
        swept(ids);
      } catch (error) {
        leavings = [...ids, ...leavings];
        process.stderr.write(`removing what dead tasks left in the pool: ${(error as Error).message}\n`);
      }
    },
  });

  async function handle(
    { id, command, input, paces, signal, started }: Execution,
    progress: Parameters<typeof createContext>[0]['progress'],
  ): Promise<unknown> {
    started();
    const { handlers } = await import('../commands/index.ts');
    const handler = (handlers as Handlers)[command.kind] as (input: unknown, context: unknown) => Promise<unknown>;
    await using context = createContext({
      taskId: id,
      config,
      spoolDir,
      signal,
      input,
      paces,
      progress,
      pool: pools.get,
      async openStore(ref, abort) {
        const registry = await import('../backup/registry.ts');
        await registry.addPlugIns(config.drivers);
        return registry.openBackupStore(ref, abort);
      },
    });
    return await handler(command.input, context);
  }

  return async execution => {
    const { command, signal } = execution;
    const meter = createMeter(execution.progress);
    const poolId = poolOf(command);
    mine ??= poolId;
    const mounts = command.kind === 'pool.connect' || command.kind === 'pool.disconnect';
    if (mounts && poolId) pools.forget(poolId);
    try {
      const limiter = HEAVY.has(command.kind) ? heavy : light;
      return { ok: true, output: await limiter(signal, () => handle(execution, meter.report)) };
    } catch (error) {
      if (poolId && error instanceof CisternError && POOL_ERRORS.has(error.code)) {
        pools.forget(poolId);
        leavings.push(execution.id); // a pool that can no more be written to keeps what the task could not remove
      }
      if (!(error instanceof CisternError) && !signal.aborted)
        process.stderr.write(`task ${execution.id}: ${(error as Error).stack}\n`);
      return { ok: false, problem: toProblem(error), aborted: signal.aborted };
    } finally {
      meter.stop();
      if (mounts && poolId) pools.forget(poolId);
    }
  };
}
