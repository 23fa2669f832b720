import { setTimeout as delay } from 'node:timers/promises';
import { reportRoutes } from '../../shared/contract/operations.ts';
import { CisternError } from '../../shared/errors.ts';
import { type Client, createClient } from '../../shared/http/client.ts';
import type { Logger } from '../../shared/log.ts';
import type { ClientTls } from '../../shared/tls/client.ts';
import { isFinal } from '../../shared/task.ts';
import type { ControllerAddress } from './controller-file.ts';
import { type Registry, reportOf, type Task } from './registry.ts';

export interface ReporterOptions {
  registry: Registry;
  /** Number of this run of the agent; the controller takes no batch of an earlier one any more. */
  epoch: number;
  /** The controller knows this host no more. */
  disowned(): void;
  /** How this host shows itself to the controller, where it has joined. */
  tls: () => ClientTls | undefined;
  log: Logger;
}

const BATCH_COUNT = 500;
const BATCH_BYTES = 512 * 1024;
const PROGRESS_MS = 500;
const TIMEOUT_SECONDS = 10;
const BACKOFF_MS = { first: 200, last: 15_000 };

/**
 * Sends task reports to the controller, one batch at a time: a final report goes at once, and those that come while a batch is on
 * its way make the next one. Progress goes with the latest state only, twice a second for each task. Final reports stay until the
 * controller has acknowledged them; each try is a new batch with a new number, so an old one that comes late is dropped there.
 */
export type Reporter = ReturnType<typeof createReporter>;

export function createReporter({ registry, epoch, disowned, tls, log }: ReporterOptions) {
  const due = new Set<string>();
  const later = new Map<string, number>();
  const lastSent = new Map<string, number>();
  let target: { address: ControllerAddress; client: Client<typeof reportRoutes> } | undefined;
  let seq = 0;
  let pumping: Promise<void> | undefined;
  let wake = new AbortController();
  let stopped = false;
  let away = false;

  const ticker = setInterval(() => {
    const now = performance.now();
    for (const [id, at] of later) {
      if (at > now) continue;
      later.delete(id);
      due.add(id);
    }
    if (due.size > 0) pump();
  }, PROGRESS_MS / 2);
  ticker.unref();

  function changed(task: Task): void {
    if (isFinal(task.state)) {
      later.delete(task.id);
      lastSent.delete(task.id);
      if (task.acked) return;
      due.add(task.id);
      pump();
    } else if (!due.has(task.id) && !later.has(task.id)) {
      // never at once: a report under way would hold up a final one, and most tasks end sooner
      later.set(task.id, Math.max(performance.now(), (lastSent.get(task.id) ?? 0) + PROGRESS_MS));
    }
  }

  function pump(): void {
    pumping ??= send().finally(() => {
      pumping = undefined;
      if (due.size > 0 && target && !stopped) pump();
    });
  }

  async function send(): Promise<void> {
    let backoff = BACKOFF_MS.first;
    while (target && due.size > 0 && !stopped) {
      const batch = takeBatch();
      if (batch.length === 0) continue;
      const to = target;
      try {
        await post(to, batch);
        backoff = BACKOFF_MS.first;
        if (away) log.info({ controller: to.address.url }, 'the controller takes reports again');
        away = false;
      } catch (error) {
        for (const task of batch) due.add(task.id);
        if (target === to && error instanceof CisternError && error.code === 'UNAUTHORIZED') return leave(to);
        if (!away)
          log.warn(
            { controller: to.address.url, reason: (error as Error).message },
            'the controller does not take reports; they are kept and sent again',
          );
        away = true;
        await delay(backoff * (0.75 + Math.random() / 2), undefined, { signal: wake.signal, ref: false }).catch(() => undefined);
        backoff = Math.min(backoff * 2, BACKOFF_MS.last);
      }
    }
  }

  /** It was removed there: reports stay for the next controller that connects, which also says the address anew. */
  function leave({ address, client }: NonNullable<typeof target>): void {
    log.warn({ controller: address.url }, 'the controller knows this host no more; nothing is reported until one connects');
    client.close();
    target = undefined;
    disowned();
  }

  function takeBatch(): Task[] {
    const batch: Task[] = [];
    let bytes = 0;
    for (const id of due) {
      const task = registry.find(id);
      if (task && batch.length > 0 && (bytes + task.bytes > BATCH_BYTES || batch.length >= BATCH_COUNT)) break;
      due.delete(id);
      if (!task) continue;
      bytes += task.bytes;
      batch.push(task);
    }
    return batch;
  }

  async function post({ address, client }: NonNullable<typeof target>, batch: Task[]): Promise<void> {
    const number = ++seq;
    const final = batch.filter(task => isFinal(task.state)).map(task => task.id);
    const { acked } = await client.postReports({
      body: { hostId: address.hostId, epoch, seq: number, reports: batch.map(reportOf) },
    });
    if (acked < number)
      throw new CisternError('INTERNAL', `the controller did not take batch ${number} of run ${epoch}: it has ${acked}`);
    const now = performance.now();
    for (const task of batch) if (!isFinal(task.state)) lastSent.set(task.id, now);
    registry.acked(final);
  }

  return {
    changed,
    /** Reports go there from now on. What has not been acknowledged is sent first, also that of earlier runs. */
    setTarget(address: ControllerAddress): void {
      const old = target;
      target = {
        address,
        client: createClient(reportRoutes, {
          baseUrl: address.url,
          ...(tls() ? { tls: () => tls()! } : { token: address.token }),
          timeoutSeconds: TIMEOUT_SECONDS,
          unreachable: 'HOST_UNREACHABLE',
        }),
      };
      old?.client.close();
      for (const task of registry.all()) if (isFinal(task.state) && !task.acked) due.add(task.id);
      wakeUp();
      pump();
    },
    /** Final reports that the controller has not acknowledged yet. */
    pending: (): number => [...registry.all()].filter(task => isFinal(task.state) && !task.acked).length,
    /** Sends what is left, for as long as the deadline allows. */
    async stop(deadlineMs: number): Promise<void> {
      clearInterval(ticker);
      wakeUp();
      pump();
      const deadline = new AbortController();
      const flushed = (async () => {
        while (target && due.size > 0 && !deadline.signal.aborted) await pumping;
      })();
      await Promise.race([flushed, delay(deadlineMs, undefined, { signal: deadline.signal }).catch(() => undefined)]);
      deadline.abort();
      stopped = true;
      wakeUp();
      target?.client.close();
    },
  };

  function wakeUp(): void {
    wake.abort();
    wake = new AbortController();
  }
}
