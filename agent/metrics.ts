import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry as MetricsRegistry } from 'prom-client';
import { isFinal } from '../shared/task.ts';
import type { Reporter } from './tasks/reporter.ts';
import type { Registry, Task } from './tasks/registry.ts';
import type { Workers } from './worker/workers.ts';

/** From a linked clone (milliseconds) to an image of a terabyte (hours). */
const SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14_400];

export interface Metrics {
  /** Counts a task that ended. */
  changed(task: Task): void;
  /** Prometheus text. */
  text(): Promise<string>;
  contentType: string;
}

/** What `GET /metrics` shows: base units, `cistern_agent_` before what is ours, the usual `process_` and `nodejs_` for the process. */
export function createMetrics(
  version: string,
  sources: { registry(): Registry; reporter(): Reporter; workers(): Workers },
): Metrics {
  const registers = [new MetricsRegistry()];
  collectDefaultMetrics({ register: registers[0] });
  new Gauge({ name: 'cistern_agent_build_info', help: 'Version of the agent; always 1', labelNames: ['version'], registers }).set(
    { version },
    1,
  );
  new Gauge({
    name: 'cistern_agent_tasks_running',
    help: 'Tasks that are queued or running',
    labelNames: ['kind'],
    registers,
    collect() {
      this.reset();
      for (const task of sources.registry().all()) if (!isFinal(task.state)) this.inc({ kind: task.kind });
    },
  });
  const total = new Counter({
    name: 'cistern_agent_tasks_total',
    help: 'Tasks that ended',
    labelNames: ['kind', 'state'],
    registers,
  });
  const duration = new Histogram({
    name: 'cistern_agent_task_duration_seconds',
    help: 'Time from when a task came to its end',
    labelNames: ['kind'],
    buckets: SECONDS,
    registers,
  });
  const moved = new Counter({
    name: 'cistern_agent_transfer_bytes_total',
    help: 'Bytes that finished transfers moved from (in) or to (out) backup storage',
    labelNames: ['direction'],
    registers,
  });
  new Gauge({
    name: 'cistern_agent_workers',
    help: 'Worker processes that live',
    registers,
    collect() {
      this.set(sources.workers().pids().length);
    },
  });
  let deaths = 0;
  new Counter({
    name: 'cistern_agent_worker_deaths_total',
    help: 'Worker processes that died or had to be killed',
    registers,
    collect() {
      const now = sources.workers().deaths();
      this.inc(now - deaths);
      deaths = now;
    },
  });
  new Gauge({
    name: 'cistern_agent_reports_pending',
    help: 'Final task reports that the controller has not acknowledged',
    registers,
    collect() {
      this.set(sources.reporter().pending());
    },
  });

  return {
    changed(task) {
      if (!isFinal(task.state)) return;
      total.inc({ kind: task.kind, state: task.state });
      duration.observe({ kind: task.kind }, (performance.now() - task.since) / 1000);
      const bytes = task.state === 'succeeded' ? movedBytes(task.output) : 0;
      if (bytes > 0) moved.inc({ direction: task.kind === 'cache.fill' ? 'in' : 'out' }, bytes);
    },
    text: () => registers[0]!.metrics(),
    contentType: registers[0]!.contentType,
  };
}

/** Sum over the transfer summaries in a command's output. */
function movedBytes(output: unknown): number {
  const { transfer, transfers } = (output ?? {}) as {
    transfer?: { moved?: number };
    transfers?: { summary?: { moved?: number } }[];
  };
  return (transfer?.moved ?? 0) + (transfers ?? []).reduce((sum, t) => sum + (t.summary?.moved ?? 0), 0);
}
