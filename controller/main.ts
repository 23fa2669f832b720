import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { loadConfig } from '../shared/config.ts';
import { CisternError, toProblem } from '../shared/errors.ts';
import { readOrCreateToken } from '../shared/http/auth.ts';
import { createLog, type Logger } from '../shared/log.ts';
import { createNotifier } from '../shared/systemd.ts';
import { createApp } from './api/app.ts';
import { ControllerConfig } from './config.ts';
import { openDatabase } from './db/database.ts';
import { createEvents } from './events.ts';
import { createFleet } from './fleet/fleet.ts';
import { keepHeartbeats } from './fleet/heartbeat.ts';
import { createMetrics } from './metrics.ts';
import { createEngine } from './operations/engine.ts';
import { startSchedules } from './policy/schedules.ts';
import { openSecrets } from './secrets.ts';
import type { Services } from './services.ts';
import { WORKFLOWS } from './workflows/registry.ts';

export interface RunningController {
  url: string;
  token: string;
  port: number;
  /** Stops without ending operations: the next controller on the same state folder goes on with them. Safe to call twice. */
  stop(): Promise<void>;
}

const DEFAULT_FILE = '/etc/cistern/controller.json';
const VERSION = (JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }).version;
/** Requests under way may take so long to end once the controller stops. */
const CLOSE_MS = 1000;

/** Starts a controller in this process. */
export async function startController(config: ControllerConfig, log: Logger): Promise<RunningController> {
  await using undo = new AsyncDisposableStack();
  mkdirSync(config.stateDir, { recursive: true, mode: 0o700 });
  const tokenFile = join(config.stateDir, 'token');
  const { token, created } = readOrCreateToken(tokenFile);
  if (created) log.info({ tokenFile }, 'a token for the API was made; whoever may read this file may use the API');
  const secrets = openSecrets(config.stateDir);
  const metrics = createMetrics(VERSION);
  const events = createEvents();
  const db = undo.adopt(
    await openDatabase(join(config.stateDir, 'cistern.db'), seconds => {
      metrics.commitSeconds.observe(seconds);
      events.committed();
    }),
    opened => opened.close(),
  );
  let url = '';
  const fleet = createFleet(db, secrets, config.taskRetrySeconds);
  const services: Services = { config, log, db, secrets, events, metrics, fleet, publicUrl: () => config.publicUrl ?? url };
  const engine = undo.adopt(createEngine(services, WORKFLOWS), e => e.stop());
  const server = undo.adopt(await listen(createServer(createApp({ services, engine, version: VERSION }, token)), config), close);
  const { port } = server.address() as AddressInfo;
  url = `http://${config.listen.includes(':') ? `[${config.listen}]` : config.listen}:${port}`;
  const stopping = new AbortController();
  const heartbeats = keepHeartbeats(services, stopping.signal);
  undo.defer(async () => {
    stopping.abort(new Error('the controller stops'));
    await heartbeats;
  });
  undo.defer(startSchedules(services, engine));
  await engine.resume();
  log.info({ url, stateDir: config.stateDir, pid: process.pid }, 'controller listens');

  const started = undo.move();
  let stopped: Promise<void> | undefined;
  return { url, token, port, stop: () => (stopped ??= started.disposeAsync()) };
}

async function listen(server: Server, { listen, port }: ControllerConfig): Promise<Server> {
  // an upload may take hours; the agent that receives it watches that bytes come in
  server.requestTimeout = 0;
  server.listen(port, listen);
  try {
    await once(server, 'listening');
  } catch (cause) {
    throw new CisternError('BAD_REQUEST', `listening on ${listen} port ${port}: ${(cause as Error).message}`, {
      cause,
      action: 'Set listen and port of the controller to an address of this host that is free.',
    });
  }
  return server;
}

async function close(server: Server): Promise<void> {
  const closed = once(server, 'close');
  server.close();
  const cut = setTimeout(() => server.closeAllConnections(), CLOSE_MS);
  await closed;
  clearTimeout(cut);
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { config: { type: 'string' } } });
  const file = values.config ?? process.env.CISTERN_CONTROLLER_CONFIG ?? (existsSync(DEFAULT_FILE) ? DEFAULT_FILE : undefined);
  const config = loadConfig(ControllerConfig, 'CISTERN_CONTROLLER', file);
  const log = createLog('cistern-controller', config.logLevel);
  const systemd = createNotifier(log);
  const controller = await startController(config, log);
  const stop = async (signal: string): Promise<void> => {
    log.info({ signal }, 'controller stops');
    await Promise.all([systemd.stopping(), controller.stop()]);
    log.info('controller has stopped');
    process.exit(0);
  };
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => void stop(signal));
  await systemd.ready(`Serving ${controller.url}`);
}

if (import.meta.main) {
  main().catch((error: unknown) => {
    const { code, detail, action } = toProblem(error);
    process.stderr.write(`cistern-controller: ${code}: ${detail}\n${action}\n`);
    process.exit(1);
  });
}
