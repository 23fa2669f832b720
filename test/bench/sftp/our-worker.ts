import { fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import type { Job, Reply, Store } from './worker.ts';

const LIMIT_MS = 600_000;

export interface OurWorker extends AsyncDisposable {
  run(job: Job): Promise<void>;
}

/** Our side in a process of its own, as an agent's workers are; `more` is added to its environment. */
export async function ourWorker(folder: string, store: Store, more: Record<string, string> = {}): Promise<OurWorker> {
  // the environment that the agent gives its workers
  const env = { NODE_COMPILE_CACHE: join(folder, 'compile-cache'), MALLOC_ARENA_MAX: '2', ...process.env, ...more };
  const child = fork(join(import.meta.dirname, 'worker.ts'), { execArgv: [], env });
  const ask = async (message: unknown): Promise<Reply> => {
    child.send(message as object);
    const [reply] = (await once(child, 'message', { signal: AbortSignal.timeout(LIMIT_MS) })) as [Reply];
    if (reply.error) throw new Error(reply.error);
    return reply;
  };
  await ask({ what: 'open', store });
  return {
    run: async job => void (await ask(job)),
    [Symbol.asyncDispose]: async () => {
      if (child.exitCode !== null) return;
      child.kill();
      await once(child, 'exit');
    },
  };
}
