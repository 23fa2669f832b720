import type { CommandInput, CommandKind, CommandOutput } from '../../shared/commands/index.ts';
import type { ResourceRef } from '../../shared/model.ts';
import type { Trx } from '../db/database.ts';
import type { Services } from '../services.ts';

export interface Accepted<Plan> {
  /** What `run` needs; stored sealed. */
  plan: Plan;
  resources: ResourceRef[];
}

/** A user-visible operation. One file each in `workflows/`. */
export interface Workflow<Request = never, Plan = never> {
  kind: string;
  /**
   * Checks the request and claims what it needs (names, rows, room) in the transaction that makes the operation: a request that
   * cannot be done fails here, with nothing changed. Awaits nothing but queries of `trx`.
   */
  accept(trx: Trx, request: Request, operationId: string, services: Services): Promise<Accepted<Plan>>;
  /**
   * Does the work. It may be run again from the start by a controller that follows a dead one: all effects stand inside steps, tasks
   * and transactions, whose results are journalled and returned at once the second time. Between them only plain computation.
   */
  run(op: Run, plan: Plan): Promise<void>;
}

/** What a workflow works with. */
export interface Run {
  id: string;
  services: Services;
  /** Holds named locks until the operation has ended; waits for those that others hold. Names are taken in sorted order. */
  lock(...names: string[]): Promise<void>;
  /** Journals what `work` returns. It may be run twice where a controller dies in it, so it must be repeatable. */
  step<T>(name: string, work: () => Promise<T>): Promise<T>;
  /** A step whose database changes and journal entry are one transaction. */
  tx<T>(name: string, work: (trx: Trx) => Promise<T>): Promise<T>;
  /** A command on a host as a journalled step, with progress; sent again where agent or worker died under it, unless `resend` is false. */
  task<K extends CommandKind>(
    name: string,
    hostId: string,
    kind: K,
    input: () => Promise<CommandInput<K>>,
    options?: { resend: boolean },
  ): Promise<CommandOutput<K>>;
  /**
   * Says how to take back what the following steps do; run in reverse order when the operation fails or is cancelled. Said before
   * the step, since a step that failed may have done a part. It must be repeatable, and may use `step`, `tx` and `task`.
   */
  undo(name: string, work: () => Promise<void>): void;
  /** What the operation returns, and the database changes that go into the transaction of its end. */
  finish(output: Record<string, unknown>, work?: (trx: Trx) => Promise<void>): void;
  /** Whether a file or request of this process should go on: aborted on cancel and on shutdown. */
  signal(): AbortSignal;
}
