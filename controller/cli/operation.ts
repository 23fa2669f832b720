import type { Command } from 'commander';
import { CisternError } from '../../shared/errors.ts';
import type { CallOptions } from '../../shared/http/client.ts';
import { newId } from '../../shared/id.ts';
import type { Operation } from '../../shared/model.ts';
import type { Call } from './command.ts';
import { followOperation } from './follow.ts';
import { reportOutcome } from './outcome.ts';

/** Adds `--no-wait` to a command that starts an operation. */
export const withWait = (command: Command): Command =>
  command.option('--no-wait', 'print the operation and do not wait for its end');

/**
 * Starts an operation and, unless `--no-wait` was given, follows it to its end. The request carries an idempotency key and is sent
 * once more when its answer got lost, so nothing is done twice. Returns the exit code.
 */
export async function runOperation(call: Call, start: (options: CallOptions) => Promise<Operation>): Promise<number> {
  const operation = await startOnce(start);
  if (call.options.wait === false) {
    call.out.say(operation.id, operation);
    return 0;
  }
  return reportOutcome(call, await followOperation(call, operation));
}

/** Starts an operation under a new idempotency key; sent again once where no answer came. */
export async function startOnce(start: (options: CallOptions) => Promise<Operation>): Promise<Operation> {
  const options = { headers: { 'Idempotency-Key': newId() } };
  try {
    return await start(options);
  } catch (error) {
    if (error instanceof CisternError && (error.code === 'TIMEOUT' || error.code === 'CONTROLLER_UNREACHABLE'))
      return start(options);
    throw error;
  }
}
