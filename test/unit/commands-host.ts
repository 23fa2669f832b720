import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { openBackupStore } from '../../agent/backup/registry.ts';
import { handlers } from '../../agent/commands/index.ts';
import { poolDriver } from '../../agent/commands/pool-driver.ts';
import { AgentConfig } from '../../agent/config.ts';
import { createContext } from '../../agent/worker/context.ts';
import { createPaces, type TaskPaces } from '../../agent/worker/paces.ts';
import { createPools } from '../../agent/worker/pools.ts';
import type { TaskInput } from '../../agent/worker/protocol.ts';
import { type CommandInput, type CommandKind, type CommandOutput, findCommand } from '../../shared/commands/index.ts';
import type { PoolRef, StoreRef } from '../../shared/commands/refs.ts';
import { newId } from '../../shared/id.ts';

export const exec = promisify(execFile);
export const MiB = 2 ** 20;

interface RunOptions {
  signal?: AbortSignal;
  /** What was uploaded for the task. */
  upload?: TaskInput;
  paces?: TaskPaces;
  progress?: (stage: string, done: number, total: number | null) => void;
}

/** A host as a command's handler sees it, without the processes around it. Everything lies below `base`. */
export async function startHost(settings: Record<string, unknown> = {}) {
  const base = await mkdtemp(join(tmpdir(), 'cistern-host-'));
  const spoolDir = join(base, 'spool');
  await mkdir(spoolDir);
  const config = AgentConfig.parse({
    stateDir: base,
    mountDir: join(base, 'mnt'),
    importAllow: ['127.0.0.0/8'],
    stallSeconds: 10,
    ...settings,
  });
  const pools = createPools({ mountDir: config.mountDir, find: async ref => poolDriver(ref), opened: async () => undefined });

  /** Carries out a command as a worker does; what comes back must fit the contract, and the spool must be empty afterwards. */
  async function run<K extends CommandKind>(
    kind: K,
    input: CommandInput<K>,
    options: RunOptions = {},
  ): Promise<CommandOutput<K>> {
    const taskId = newId();
    const definition = findCommand(kind)!;
    try {
      await using ctx = createContext({
        taskId,
        config,
        spoolDir,
        signal: options.signal ?? new AbortController().signal,
        input: options.upload,
        paces: options.paces ?? createPaces({}),
        progress: options.progress ?? (() => undefined),
        pool: pools.get,
        openStore: openBackupStore,
      });
      return definition.output.parse(
        await handlers[kind](definition.input.parse(input) as CommandInput<K>, ctx),
      ) as CommandOutput<K>;
    } finally {
      if (kind.startsWith('pool.')) pools.forget((input as { pool: PoolRef }).pool.id);
      assert.equal((await readdir(spoolDir)).includes(taskId), false, `${kind} left its spool folder`);
    }
  }

  return {
    base,
    run,
    /** A new folder that is a backup storage. */
    async store(): Promise<StoreRef & { path: string }> {
      const path = await mkdtemp(join(base, 'store-'));
      return { id: newId(), type: 'dir', config: { path }, path };
    },
    /** A new pool, connected. */
    async pool(): Promise<PoolRef & { path: string }> {
      const path = await mkdtemp(join(base, 'pool-'));
      const pool = { id: newId(), type: 'local', config: { path } };
      await run('pool.connect', { pool, initialize: true });
      return { ...pool, path };
    },
    [Symbol.asyncDispose]: () => rm(base, { recursive: true, force: true }),
  };
}

export type Host = Awaited<ReturnType<typeof startHost>>;

/** The reference without the test's own field. */
export const ref = <T extends StoreRef | PoolRef>({ id, type, config }: T): StoreRef => ({ id, type, config });

/** A raw disk of 8 MiB with a partition table's mark, text at 1 MiB and zeros between: what every import of it must show. */
export async function makeDisk(path: string): Promise<string> {
  await exec('qemu-img', ['create', '-q', '-f', 'raw', path, '8M']);
  await exec('qemu-io', [
    '-f',
    'raw',
    '-c',
    'write -q -P 0x55 510 1',
    '-c',
    'write -q -P 0xaa 511 1',
    '-c',
    'write -q -P 0x41 1M 300k',
    path,
  ]);
  return path;
}

/** Whether the object that a store has of an image shows a guest the same bytes as a raw disk, and stands alone. */
export async function assertShows(store: { path: string }, image: { id: string; format: string }, disk: string): Promise<void> {
  const object = join(store.path, 'images', image.id, `image.${image.format}`);
  const { stdout } = await exec('qemu-img', ['info', '-f', image.format, '--output=json', object]);
  assert.equal((JSON.parse(stdout) as Record<string, unknown>)['backing-filename'], undefined);
  await exec('qemu-img', ['compare', '-f', image.format, '-F', 'raw', object, disk]);
}

export const sha256 = async (path: string): Promise<string> =>
  createHash('sha256')
    .update(await readFile(path))
    .digest('hex');

export const code = (expected: string) => (error: unknown) => {
  assert.equal((error as { code?: string }).code, expected, String(error));
  return true;
};
