import project from '../package.json' with { type: 'json' };
import type { Logger } from '../shared/log.ts';
import type { Facts } from '../shared/model.ts';
import { type Running, runService, serve } from '../shared/service.ts';
import { AgentConfig } from './config.ts';
import { createApp } from './http.ts';
import { openIdentity } from './identity.ts';
import { createMetrics } from './metrics.ts';
import { openState } from './state.ts';
import { openJournal } from './tasks/journal.ts';
import { createRegistry, type Task } from './tasks/registry.ts';
import { createReporter, type Reporter } from './tasks/reporter.ts';
import { createRunner } from './tasks/runner.ts';
import { createServing } from './tasks/serving.ts';

export interface RunningAgent extends Running {
  token: string;
}

const STOP_MS = 10_000;
const FLUSH_MS = 2000;

/**
 * Starts an agent in this process; its workers are processes of their own. Stopping it interrupts what runs, reports that and ends
 * the workers.
 */
export async function startAgent(config: AgentConfig, log: Logger): Promise<RunningAgent> {
  if (config.drivers.length > 0) await (await import('./backup/registry.ts')).addPlugIns(config.drivers);
  await using undo = new AsyncDisposableStack();
  const { token, spoolDir } = undo.use(await openState(config, log));
  const journal = undo.adopt(await openJournal(config.stateDir, log), j => j.close());

  // the registry tells of tasks that the last run left before the reporter is there; setTarget makes up for those
  let reporter: Reporter | undefined;
  const metrics = createMetrics(project.version, {
    registry: () => registry,
    reporter: () => reporter!,
    workers: () => runner.workers,
  });
  const changed = (task: Task): void => {
    metrics.changed(task);
    reporter?.changed(task);
  };
  const registry = createRegistry({ journal, log, key: token, changed });
  const identity = openIdentity(config.stateDir, log);
  const serving = undo.use(createServing(config.stateDir, log));
  const joined = identity.get()?.hostId;
  // it has joined as another host since: what it served before does not matter any more
  if (joined !== undefined && serving.address()?.hostId !== joined) serving.forget();
  const reporting = (reporter = undo.adopt(
    createReporter({ registry, tls: identity.client, epoch: journal.epoch, disowned: () => serving.forget(), log }),
    r => r.stop(FLUSH_MS),
  ));
  const runner = undo.adopt(createRunner({ config, spoolDir, registry, log }), r => r.stop(STOP_MS));
  const known = serving.address();
  if (known) reporting.setTarget(known);

  let warned: string | undefined;
  const app = createApp({
    token,
    joined: joined !== undefined,
    runner,
    registry,
    metrics,
    log,
    serving,
    epoch: journal.epoch,
    facts: async () => {
      const found = await facts(config);
      // once for each way in which it is not as it should be
      if (!found.cage.whole && warned !== found.cage.detail)
        log.warn({ cage: found.cage.detail }, 'programs that read untrusted images are not locked in');
      warned = found.cage.detail;
      return found;
    },
    setController(address) {
      serving.set(address);
      reporting.setTarget(address);
    },
  });
  const listen = config.listen ?? (identity.get() ? '::' : '127.0.0.1');
  const server = undo.use(await serve(app, { listen, port: config.port }, identity.server()));
  undo.defer(identity.keep(next => server.renew(next)));
  const { url } = server;
  log.info({ url, stateDir: config.stateDir, pid: process.pid }, 'agent listens');

  const started = undo.move();
  let stopped: Promise<void> | undefined;
  return { url, token, stop: () => (stopped ??= started.disposeAsync()) };
}

/** Imported when asked for: it brings every driver with it, which this process needs for nothing else. */
async function facts(config: AgentConfig): Promise<Facts> {
  const [host, primary, backup] = await Promise.all([
    import('./host/facts.ts'),
    import('./primary/registry.ts'),
    import('./backup/registry.ts'),
  ]);
  return host.hostFacts(config, { primary: primary.primaryDriverFacts(), backup: backup.backupDriverFacts() });
}

if (import.meta.main) {
  await runService({
    name: 'cistern-agent',
    config: AgentConfig,
    prefix: 'CISTERN_AGENT',
    defaultFile: '/etc/cistern/agent.json',
    start: startAgent,
  });
}
