import { setTimeout as delay } from 'node:timers/promises';
import type { CommandKind, CommandMessage, CommandOutput } from '../../shared/commands/index.ts';
import { findCommand } from '../../shared/commands/index.ts';
import { agentRoutes } from '../../shared/contract/agent.ts';
import { CisternError, fromProblem } from '../../shared/errors.ts';
import { formatPosition, POSITION_HEADER } from '../../shared/position.ts';
import { createClient, type Client } from '../../shared/http/client.ts';
import { isFinal, type Progress, type ReportBatch, type TaskReport } from '../../shared/task.ts';
import type { ClientTls } from '../../shared/tls/client.ts';
import { hostName } from '../../shared/tls/names.ts';
import type { Database } from '../db/database.ts';
import type { Secrets } from '../secrets.ts';
import { createRuns } from './runs.ts';
import { createTraffic, type Place } from './traffic.ts';

export type AgentClient = Client<typeof agentRoutes>;

export interface RunOptions {
  signal: AbortSignal;
  /** The operation that the task belongs to, where it belongs to one. */
  operation?: string;
  onProgress?: (progress: Progress) => void;
  /** How long to wait for a host that does not answer; else as configured. */
  patienceSeconds?: number;
}

/** The agents of all hosts, as the rest of the controller sees them. */
export interface Fleet {
  client(hostId: string): Promise<AgentClient>;
  /** Forgets what is known of a host's address and token (it was removed or added again). */
  forget(hostId: string): void;
  /**
   * Runs a command on a host as the task `taskId` and returns its output. The same id finds a task that an earlier controller sent.
   * A host that does not answer is waited for, as long as the configuration says. An aborted signal cancels the task.
   */
  run<K extends CommandKind>(
    hostId: string,
    taskId: string,
    message: CommandMessage<K>,
    options: RunOptions,
  ): Promise<CommandOutput<K>>;
  /** Ends a task that may or may not be there, waits until it runs no more, and returns its last report. */
  stop(hostId: string, taskId: string): Promise<TaskReport | undefined>;
  /** The agent at the host's address is in this run: its reports are taken. */
  isRun(hostId: string, epoch: number): void;
  /** Takes a batch of reports; returns the number up to which batches of this agent run are known. AGENT_UNKNOWN for another run. */
  take(hostId: string, batch: ReportBatch): number;
  /** The limits of a backup storage were changed: they hold for what runs already, too. */
  limitsChanged(storeId: string): Promise<void>;
  /** Tasks that this controller waits for on a host. */
  busy(hostId: string): number;
  /** Operations whose tasks run on a host. */
  operationsOn(hostId: string): string[];
}

/** A task without any report for so long is asked for. */
const POLL_SECONDS = 10;
/** How long a cancelled task may take to end. */
const CANCEL_SECONDS = 30;

interface Waiter {
  hostId: string;
  operation: string | undefined;
  report(report: TaskReport): void;
  /** Its place among the transfers has changed. */
  wake(): void;
}

export interface FleetOptions {
  db: Database;
  secrets: Secrets;
  /** How long a host that does not answer is waited for. */
  retrySeconds: number;
  /** How the controller shows itself to a host of this name. */
  trusting(name: string): () => ClientTls;
  /** Makes this run of the controller and the agent's known to each other. */
  meet(hostId: string): Promise<unknown>;
  /** Told of another run than the agent's that reports in the name of a host. */
  onStray(hostId: string, epoch: number): void;
}

export function createFleet({ db, secrets, retrySeconds, trusting, meet, onStray }: FleetOptions): Fleet {
  const clients = new Map<string, AgentClient>();
  const waiters = new Map<string, Waiter>();
  const runs = createRuns(meet, onStray);
  const load = new Map<string, number>();
  const traffic = createTraffic(db);

  const client = async (hostId: string): Promise<AgentClient> => {
    const known = clients.get(hostId);
    if (known) return known;
    const host = await db.read
      .selectFrom('hosts')
      .select(['url', 'token_sealed', 'generation'])
      .where('id', '=', hostId)
      .executeTakeFirst();
    if (!host) throw new CisternError('NOT_FOUND', `host ${hostId} is not known any more`);
    const made = createClient(agentRoutes, {
      baseUrl: host.url,
      ...(host.generation === null
        ? { token: secrets.open<string>(host.token_sealed, `hosts.token_sealed/${hostId}`) }
        : { tls: trusting(hostName(hostId, host.generation)) }),
      timeoutSeconds: 10,
      unreachable: 'HOST_UNREACHABLE',
      headers: () => ({ [POSITION_HEADER]: formatPosition(db.position()) }),
    });
    clients.set(hostId, made);
    return made;
  };

  const fleet: Fleet = {
    client,
    forget(hostId) {
      clients.get(hostId)?.close();
      clients.delete(hostId);
      runs.forget(hostId);
    },
    busy: hostId => load.get(hostId) ?? 0,
    operationsOn: hostId =>
      [...waiters.values()].flatMap(({ hostId: on, operation }) => (on === hostId && operation !== undefined ? operation : [])),
    limitsChanged: traffic.refresh,
    isRun: runs.is,
    take(hostId, batch) {
      if (runs.isNew(hostId, batch))
        for (const report of batch.reports) {
          const waiter = waiters.get(report.id);
          if (waiter?.hostId === hostId) waiter.report(report);
        }
      return runs.last(hostId);
    },
    async run(hostId, taskId, message, options) {
      load.set(hostId, fleet.busy(hostId) + 1);
      try {
        using place = await traffic.enter(message as unknown as CommandMessage, {
          signal: options.signal,
          waiting: store =>
            options.onProgress?.({
              stage: `wait for a place at ${store}`,
              done: 0,
              total: null,
              unit: 'items',
              rate: null,
              eta: null,
            }),
          changed: () => waiters.get(taskId)?.wake(),
        });
        const report = await follow(hostId, taskId, message as unknown as CommandMessage, place, options);
        if (report.state === 'succeeded') return findCommand(message.kind)!.output.parse(report.output) as never;
        throw report.error
          ? fromProblem(report.error)
          : new CisternError('CANCELLED', `${message.kind} on host ${hostId} was cancelled`);
      } finally {
        waiters.delete(taskId);
        load.set(hostId, fleet.busy(hostId) - 1);
      }
    },
    async stop(hostId, taskId) {
      const deadline = performance.now() + CANCEL_SECONDS * 1000;
      try {
        const agent = await client(hostId);
        let report = await agent.cancelTask({ params: { id: taskId } });
        while (!isFinal(report.state) && performance.now() < deadline) {
          await delay(200);
          report = await agent.getTask({ params: { id: taskId } });
        }
        if (!isFinal(report.state))
          throw new CisternError(
            'TIMEOUT',
            `cancelling task ${taskId} on host ${hostId}: it still runs after ${CANCEL_SECONDS} s`,
          );
        return report;
      } catch (error) {
        if (error instanceof CisternError && (error.code === 'TASK_UNKNOWN' || error.code === 'NOT_FOUND')) return undefined;
        throw error;
      }
    },
  };

  const follow = async (
    hostId: string,
    taskId: string,
    message: CommandMessage,
    place: Place,
    { signal, operation, onProgress, patienceSeconds = retrySeconds }: RunOptions,
  ): Promise<TaskReport> => {
    let last: TaskReport | undefined;
    let wake: () => void = () => {};
    const take = (report: TaskReport) => {
      if (last && isFinal(last.state)) return;
      last = report;
      if (report.progress) onProgress?.(report.progress);
      wake();
    };
    waiters.set(taskId, { hostId, operation, report: take, wake: () => wake() });
    let awaySince: number | undefined;
    const ask = async (request: (agent: AgentClient) => Promise<TaskReport>): Promise<boolean> => {
      try {
        const report = await request(await client(hostId));
        awaySince = undefined;
        take(report);
        return true;
      } catch (error) {
        if (!(error instanceof CisternError)) throw error;
        if (error.code === 'TASK_UNKNOWN') return false;
        if (!['HOST_UNREACHABLE', 'PEER_UNTRUSTED', 'TIMEOUT', 'BUSY', 'CONTROLLER_UNKNOWN'].includes(error.code)) throw error;
        // it is judged there whether this database may go on at all; the next try shows what came of it
        if (error.code === 'CONTROLLER_UNKNOWN') await meet(hostId).catch(() => {});
        awaySince ??= performance.now();
        if (performance.now() - awaySince > patienceSeconds * 1000) throw error;
        await delay(500, undefined, { signal }).catch(() => {});
        return true;
      }
    };
    let told = '{}';
    const create = async (agent: AgentClient) => {
      const paces = place.paces();
      try {
        const report = await agent.createTask({ body: { id: taskId, command: message as never, paces } }, { signal });
        told = JSON.stringify(paces);
        return report;
      } catch (error) {
        if (!(error instanceof CisternError && error.code === 'TASK_ID_REUSED')) throw error;
        // ids are made of operation and step: an earlier controller sent this step, when a time or an order in it was another
        return agent.getTask({ params: { id: taskId } }, { signal });
      }
    };
    /** Tells the agent what the paces are now; one that is away, or does not have the task yet, is told at the next report. */
    const tellPaces = async (): Promise<boolean> => {
      const paces = place.paces();
      try {
        take(await (await client(hostId)).putTaskPaces({ params: { id: taskId }, body: { paces } }, { signal }));
        told = JSON.stringify(paces);
        return true;
      } catch (error) {
        if (error instanceof CisternError || signal.aborted) return false;
        throw error;
      }
    };
    let known = false;
    while (!signal.aborted) {
      if (!known || awaySince !== undefined) {
        await ask(create);
        known = true;
      }
      while (awaySince === undefined && !isEnded(last) && JSON.stringify(place.paces()) !== told) if (!(await tellPaces())) break;
      if (last && isFinal(last.state)) return last;
      if (awaySince !== undefined) continue;
      const heard = await new Promise<boolean>(resolve => {
        const timer = setTimeout(() => end(false), POLL_SECONDS * 1000);
        const onAbort = () => end(true);
        const end = (value: boolean) => (clearTimeout(timer), signal.removeEventListener('abort', onAbort), resolve(value));
        wake = () => end(true);
        signal.addEventListener('abort', onAbort, { once: true });
      });
      wake = () => {};
      if (!heard) known = await ask(agent => agent.getTask({ params: { id: taskId } }, { signal }));
    }
    throw signal.reason;
  };
  return fleet;
}

const isEnded = (report: TaskReport | undefined): boolean => report !== undefined && isFinal(report.state);
