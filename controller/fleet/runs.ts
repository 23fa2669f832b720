import { CisternError } from '../../shared/errors.ts';
import type { ReportBatch } from '../../shared/task.ts';

/**
 * Which run of its agent each host has, and which of that one's batches are known. Reports are taken from the run alone that answers
 * at the host's address: a copy of the machine has the same tokens and tasks, and a batch may come late, twice, or from before a restart.
 */
export interface Runs {
  /** The agent at the host's address says that this is its run. */
  is(hostId: string, epoch: number): void;
  /** Takes note of a batch; false where it, or a later one, was there before. AGENT_UNKNOWN where it is of another run. */
  isNew(hostId: string, batch: Pick<ReportBatch, 'epoch' | 'seq'>): boolean;
  /** The number up to which batches of the host's run are known. */
  last(hostId: string): number;
  forget(hostId: string): void;
}

/** An agent that was restarted is asked who it is after its first batch. Another run is told of once it was denied so often. */
const DENIED = 2;

/** `meet` asks the agent at a host's address which run it is, and says so to `is`; `onStray` is told once of each run that is not its. */
export function createRuns(meet: (hostId: string) => Promise<unknown>, onStray: (hostId: string, epoch: number) => void): Runs {
  const runs = new Map<string, { epoch: number; seq: number }>();
  const strays = new Map<string, { epoch: number; denied: number }>();
  const asked = new Set<string>();

  const ask = async (hostId: string, epoch: number): Promise<void> => {
    if (asked.has(hostId)) return;
    asked.add(hostId);
    try {
      await meet(hostId);
      if (runs.get(hostId)?.epoch === epoch) return;
      const stray = strays.get(hostId);
      const denied = stray?.epoch === epoch ? stray.denied + 1 : 1;
      strays.set(hostId, { epoch, denied });
      if (denied === DENIED) onStray(hostId, epoch);
    } catch {
      // the host does not answer, which its heartbeat tells; the next batch asks again
    } finally {
      asked.delete(hostId);
    }
  };

  return {
    is(hostId, epoch) {
      if (runs.get(hostId)?.epoch !== epoch) runs.set(hostId, { epoch, seq: 0 });
    },
    isNew(hostId, { epoch, seq }) {
      const run = runs.get(hostId);
      if (run?.epoch !== epoch) {
        // a lower number is an earlier run, of which a batch may come late; a copy of the machine began later than its original
        if (!run || epoch > run.epoch) void ask(hostId, epoch);
        throw new CisternError(
          'AGENT_UNKNOWN',
          `taking batch ${seq} of run ${epoch} of an agent: the one that answers for host ${hostId} is ${run ? `run ${run.epoch}` : 'not known yet'}`,
        );
      }
      if (seq <= run.seq) return false;
      run.seq = seq;
      return true;
    },
    last: hostId => runs.get(hostId)?.seq ?? 0,
    forget(hostId) {
      runs.delete(hostId);
      strays.delete(hostId);
    },
  };
}
