import { flushCompileCache } from 'node:module';
import process from 'node:process';
import { createExecutor } from './execute.ts';
import { createPaces, type TaskPaces } from './paces.ts';
import type { FromWorker, TaskRun, ToWorker } from './protocol.ts';

/**
 * Entry of a worker process: it carries out the commands of one storage pool, or those that touch none. The agent forks it as the
 * leader of its own process group, so that its children (qemu-img, ssh) can be ended with it.
 */
const running = new Map<string, { abort: AbortController; paces: TaskPaces }>();
/** After the first task most of what a worker needs is loaded: time to keep it compiled, as it may be killed later. */
let first = true;
let execute: ReturnType<typeof createExecutor> | undefined;

/** How long tasks may clean up after themselves once the agent is gone. */
const ORPHAN_MS = 2000;

const send = (message: FromWorker): void => {
  // the agent is gone when this fails, and 'disconnect' follows
  if (process.connected) process.send!(message, undefined, undefined, () => undefined);
};

async function run({ id, command, input, paces: given }: TaskRun): Promise<void> {
  const [abort, paces] = [new AbortController(), createPaces(given)];
  running.set(id, { abort, paces });
  const result = await execute!({
    id,
    command,
    input,
    paces,
    signal: abort.signal,
    started: () => send({ type: 'started', id }),
    progress: progress => send({ type: 'progress', id, progress }),
  });
  running.delete(id);
  send({ type: 'ended', id, result });
  if (first) flushCompileCache();
  first = false;
  if (!process.connected && running.size === 0) endGroup();
}

/** Ends this process and every child it has left. */
function endGroup(): void {
  flushCompileCache();
  try {
    process.kill(-process.pid, 'SIGKILL');
  } catch {
    // not the leader of a group: started by hand
    process.exit(1);
  }
}

process.on('message', (message: ToWorker) => {
  if (message.type === 'init') execute = createExecutor({ ...message, swept: ids => send({ type: 'swept', ids }) });
  else if (message.type === 'run') void run(message);
  else if (message.type === 'pace') running.get(message.id)?.paces.set(message.paces);
  else running.get(message.id)?.abort.abort();
});

process.on('disconnect', () => {
  if (running.size === 0) return endGroup();
  for (const { abort } of running.values()) abort.abort();
  setTimeout(endGroup, ORPHAN_MS);
});
// the agent alone decides when workers end; a Ctrl-C in the terminal reaches it as well
process.on('SIGINT', () => undefined);
process.on('SIGTERM', () => undefined);
