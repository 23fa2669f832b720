import { existsSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { createServer, type Server } from 'node:http';
import { once } from 'node:events';
import { parseArgs } from 'node:util';
import project from '../package.json' with { type: 'json' };
import { loadConfig } from '../shared/config.ts';
import { CisternError, toProblem } from '../shared/errors.ts';
import { createLog, type Logger } from '../shared/log.ts';
import type { Facts } from '../shared/model.ts';
import { createNotifier } from '../shared/systemd.ts';
import { AgentConfig } from './config.ts';
import { createApp } from './http.ts';
import { createMetrics } from './metrics.ts';
import { openState } from './state.ts';
import { readController, writeController } from './tasks/controller-file.ts';
import { openJournal } from './tasks/journal.ts';
import { createRegistry, type Task } from './tasks/registry.ts';
import { createReporter, type Reporter } from './tasks/reporter.ts';
import { createRunner } from './tasks/runner.ts';

export interface RunningAgent {
  url: string;
  token: string;
  port: number;
  /** Takes no more requests, interrupts what runs, reports that and ends the workers. Safe to call twice. */
  stop(): Promise<void>;
}

const STOP_MS = 10_000;
const FLUSH_MS = 2000;
const DEFAULT_FILE = '/etc/cistern/agent.json';

/** Starts an agent in this process; its workers are processes of their own. */
export async function startAgent(config: AgentConfig, log: Logger): Promise<RunningAgent> {
  await using undo = new AsyncDisposableStack();
  const { token, spoolDir } = undo.use(openState(config, log));
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
  const reporting = (reporter = undo.adopt(createReporter({ registry, epoch: journal.epoch, log }), r => r.stop(FLUSH_MS)));
  const runner = undo.adopt(createRunner({ config, spoolDir, registry, log }), r => r.stop(STOP_MS));
  const known = readController(config.stateDir, log);
  if (known) reporting.setTarget(known);

  const app = createApp({
    token,
    runner,
    registry,
    metrics,
    log,
    facts: () => facts(config),
    setController(address) {
      writeController(config.stateDir, address);
      reporting.setTarget(address);
    },
  });
  const server = undo.adopt(await listen(createServer(app), config), close);
  const { port } = server.address() as AddressInfo;
  const url = `http://${config.listen.includes(':') ? `[${config.listen}]` : config.listen}:${port}`;
  log.info({ url, stateDir: config.stateDir, pid: process.pid }, 'agent listens');

  const started = undo.move();
  let stopped: Promise<void> | undefined;
  return { url, token, port, stop: () => (stopped ??= started.disposeAsync()) };
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

async function listen(server: Server, { listen, port }: AgentConfig): Promise<Server> {
  // an upload may take hours; the spool watches that bytes come in
  server.requestTimeout = 0;
  server.listen(port, listen);
  try {
    await once(server, 'listening');
  } catch (cause) {
    throw new CisternError('BAD_REQUEST', `listening on ${listen} port ${port}: ${(cause as Error).message}`, {
      cause,
      action: 'Set listen and port of the agent to an address of this host that is free.',
    });
  }
  return server;
}

/** Lets answers under way out for a moment; connections without one are closed at once. */
async function close(server: Server): Promise<void> {
  const closed = once(server, 'close');
  server.close();
  const cut = setTimeout(() => server.closeAllConnections(), 1000);
  await closed;
  clearTimeout(cut);
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { config: { type: 'string' } } });
  const file = values.config ?? process.env.CISTERN_AGENT_CONFIG ?? (existsSync(DEFAULT_FILE) ? DEFAULT_FILE : undefined);
  const config = loadConfig(AgentConfig, 'CISTERN_AGENT', file);
  const log = createLog('cistern-agent', config.logLevel);
  const systemd = createNotifier(log);
  const agent = await startAgent(config, log);
  const stop = async (signal: string): Promise<void> => {
    log.info({ signal }, 'agent stops');
    await Promise.all([systemd.stopping(), agent.stop()]);
    log.info('agent has stopped');
    process.exit(0);
  };
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => void stop(signal));
  await systemd.ready(`Serving ${agent.url}`);
}

if (import.meta.main) {
  main().catch((error: unknown) => {
    const { code, detail, action } = toProblem(error);
    process.stderr.write(`cistern-agent: ${code}: ${detail}\n${action}\n`);
    process.exit(1);
  });
}
