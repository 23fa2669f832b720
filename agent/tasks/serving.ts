import { isReading } from '../../shared/commands/index.ts';
import { CisternError } from '../../shared/errors.ts';
import type { Logger } from '../../shared/log.ts';
import type { Position } from '../../shared/position.ts';
import { type ControllerAddress, forgetController, readController, writeController } from './controller-file.ts';

/** How often the newest position is written down, where it has changed. */
const WRITE_MS = 5000;

/**
 * The controller that this agent serves. Its position grows with everything it does; the newest is kept over restarts, so that a
 * controller whose database was put back to an old copy finds that out here, and does no harm until then: commands of a run that
 * did not make itself known are refused.
 */
export type Serving = ReturnType<typeof createServing>;

export function createServing(stateDir: string, log: Logger) {
  let address = readController(stateDir, log);
  let written = address?.position?.sequence;
  const write = (): void => {
    if (!address || address.position?.sequence === written) return;
    try {
      writeController(stateDir, address);
      written = address.position?.sequence;
    } catch (error) {
      log.error({ err: error }, 'what was seen of the controller cannot be written down; it is tried again');
    }
  };
  const ticker = setInterval(write, WRITE_MS).unref();

  return {
    address: (): ControllerAddress | undefined => address,
    /** A controller makes itself known; without a position the agent goes on serving whom it served. */
    set(next: ControllerAddress): void {
      const known = { ...next, position: next.position ?? address?.position };
      address = known;
      try {
        writeController(stateDir, known);
        written = known.position?.sequence;
      } catch (error) {
        // good for this run all the same, and the controller says it again after the next start
        log.error({ err: error }, 'the address of the controller cannot be kept');
      }
    },
    /** The controller does not know this host any more. */
    forget(): void {
      forgetController(stateDir);
      address = undefined;
    },
    /** A request came from a controller at this position, or by hand from none. CONTROLLER_UNKNOWN where it may not ask for this. */
    admit(from: Position | undefined, what: { kind: string } | 'cancel' | undefined): void {
      const served = address?.position;
      if (!from || !served) return;
      if (from.run === served.run) {
        served.sequence = Math.max(served.sequence, from.sequence);
        return;
      }
      if (what === undefined || (what !== 'cancel' && isReading(what.kind))) return;
      throw new CisternError(
        'CONTROLLER_UNKNOWN',
        `${what === 'cancel' ? 'cancelling a task' : what.kind}: this agent serves run ${served.run} of the controller (commit ${served.sequence}), not run ${from.run} (commit ${from.sequence})`,
      );
    },
    [Symbol.dispose](): void {
      clearInterval(ticker);
      write();
    },
  };
}
