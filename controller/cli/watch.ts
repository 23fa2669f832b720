import { setTimeout as delay } from 'node:timers/promises';
import { CisternError } from '../../shared/errors.ts';
import { FINAL_STATES, Operation } from '../../shared/model.ts';
import type { Connection, ControllerClient } from './connection.ts';
import { followEvents } from './sse.ts';

/** A controller that gives no answer for so long is taken as gone; it may be restarted in between. */
const LOST_SECONDS = 60;
const POLL_SECONDS = 2;

export const isFinal = (operation: Operation): boolean => FINAL_STATES.includes(operation.state);

/**
 * An operation at each of its changes, until it has ended: by its event stream, and by asking for it where the stream breaks. Throws
 * the last error when the controller has not answered for a minute, and at once what trying again cannot help.
 */
export async function* watchOperation(
  { client, connection }: { client: ControllerClient; connection: Connection },
  id: string,
  signal: AbortSignal,
): AsyncGenerator<Operation> {
  let answered = performance.now();
  while (performance.now() - answered < LOST_SECONDS * 1000) {
    try {
      for await (const event of followEvents(connection, `/api/v1/operations/${encodeURIComponent(id)}/events`, signal)) {
        if (event.event !== 'operation') continue;
        const operation = Operation.parse(JSON.parse(event.data));
        answered = performance.now();
        yield operation;
        if (isFinal(operation)) return;
      }
    } catch (error) {
      // a stream may be refused or cut by something in between: whether the operation can be had at all, the next request says
      if (signal.aborted) throw error;
    }
    const operation = await ask(client, id, signal);
    if (operation) {
      answered = performance.now();
      yield operation;
      if (isFinal(operation)) return;
    } else await delay(1000, undefined, { signal });
  }
  throw new CisternError(
    'CONTROLLER_UNREACHABLE',
    `following the operation ${id}: ${connection.url} has not answered for ${LOST_SECONDS} s; the operation goes on as soon as the controller does`,
  );
}

/** The operation as it is after a short wait; undefined where trying again may help. */
async function ask(client: ControllerClient, id: string, signal: AbortSignal): Promise<Operation | undefined> {
  try {
    return await client.getOperation({ params: { ref: id }, query: { wait: POLL_SECONDS } }, { signal });
  } catch (error) {
    if (error instanceof CisternError && error.retryable) return undefined;
    throw error;
  }
}
