import { setTimeout as delay } from 'node:timers/promises';
import { CisternError } from '../../../shared/errors.ts';
import { FINAL_STATES, type Operation } from '../../../shared/model.ts';
import type { Stage } from './stage.ts';
import type { Act } from './story.ts';

/** No operation of a seed may take longer to end, away hosts included. */
const END_MS = 90_000;

const isAway = (error: unknown): boolean =>
  error instanceof CisternError && ['CONTROLLER_UNREACHABLE', 'TIMEOUT', 'BUSY'].includes(error.code);

/** Asks until a controller answers: what a client does while that is being restarted. */
async function persist<T>(what: string, ask: () => Promise<T>): Promise<T> {
  const deadline = performance.now() + END_MS;
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (!isAway(error)) throw error;
      if (performance.now() > deadline) throw new Error(`${what}: no controller answered`, { cause: error });
      await delay(40);
    }
  }
}

/** Starts the work, however often the controller dies under the request, once: the key sees to that. Undefined where it is refused. */
export async function begin(act: Act, key: string): Promise<Operation | { refused: string }> {
  try {
    return await persist(key, () => act.start({ headers: { 'Idempotency-Key': key } }));
  } catch (error) {
    if (error instanceof CisternError && error.code !== 'INTERNAL') return { refused: error.message };
    throw error;
  }
}

/** Follows an operation to its end, doing what its client does meanwhile. */
export async function follow(stage: Stage, act: Act, { id, ...operation }: Operation): Promise<Operation> {
  const over = new AbortController();
  const helping = act.meanwhile ? help(act, { id, ...operation }, over.signal) : undefined;
  const deadline = performance.now() + END_MS;
  try {
    for (;;) {
      const now = await persist(`operation ${id}`, () =>
        stage.api.getOperation({ params: { ref: id }, query: { wait: 5 } }, { timeoutSeconds: 15 }),
      );
      if (FINAL_STATES.includes(now.state)) return now;
      if (performance.now() > deadline)
        throw new Error(`operation ${id} (${now.kind}) has not ended: ${now.state}, ${JSON.stringify(now.steps.at(-1))}`);
    }
  } finally {
    over.abort();
    await helping;
  }
}

async function help(act: Act, operation: Operation, over: AbortSignal): Promise<void> {
  while (!over.aborted) {
    try {
      await act.meanwhile!(operation, over);
      return;
    } catch (error) {
      if (!(error instanceof CisternError)) throw error;
      await delay(100, undefined, { signal: over }).catch(() => undefined);
    }
  }
}

/** Cancels what may have ended already. */
export async function cancel(stage: Stage, id: string): Promise<void> {
  try {
    await persist(`cancel of ${id}`, () => stage.api.cancelOperation({ params: { ref: id } }));
  } catch (error) {
    if (!(error instanceof CisternError && error.code === 'WRONG_STATE')) throw error;
  }
}
