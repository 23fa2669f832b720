/** A real controller and real agents as processes of their own on free loopback ports, with their state below one folder. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { controllerRoutes } from '../../shared/contract/controller.ts';
import { type Client, createClient } from '../../shared/http/client.ts';
import type { Operation } from '../../shared/model.ts';

export type Api = Client<typeof controllerRoutes>;

const START_MS = 30_000;
const STOP_MS = 20_000;

/** The environment that the systemd units give; without kept compiled code each start costs a second of CPU. */
const UNIT_ENV = {
  NODE_COMPILE_CACHE: join(import.meta.dirname, '../../node_modules/.cache/compiled'),
  MALLOC_ARENA_MAX: '2',
  NODE_OPTIONS: '--max-semi-space-size=4',
};

/** One service process that can be stopped, killed and started again on the same state. */
export interface Service extends AsyncDisposable {
  url: string;
  token: string;
  pid: number;
  /** Its log, line by line, of all runs. */
  log: string[];
  /** Ends it by SIGTERM. */
  stop(): Promise<void>;
  /** Ends it as a crash would. */
  kill(): Promise<void>;
  /** Starts it again, on the port that it had. */
  start(): Promise<void>;
}

async function startService(
  main: string,
  folder: string,
  settings: Record<string, unknown>,
  env: Record<string, string> = {},
): Promise<Service> {
  mkdirSync(folder, { recursive: true });
  const stateDir = join(folder, 'state');
  const file = join(folder, 'config.json');
  const script = join(import.meta.dirname, '../..', main);
  const log: string[] = [];
  let child: ChildProcess;
  let port = 0;
  const service = { url: '', token: '', pid: 0, log } as Service;

  service.start = async () => {
    writeFileSync(file, JSON.stringify({ port, stateDir, logLevel: 'info', ...settings }));
    child = spawn(process.execPath, [script, '--config', file], {
      cwd: folder,
      stdio: ['ignore', 'inherit', 'pipe'],
      env: { ...process.env, ...UNIT_ENV, ...env },
    });
    // also where this process ends by an error that nobody caught
    const killIt = child.kill.bind(child, 'SIGKILL');
    process.once('exit', killIt);
    child.once('exit', () => process.off('exit', killIt));
    const lines = createInterface({ input: child.stderr! });
    let timer: NodeJS.Timeout | undefined;
    const listening = new Promise<string>((resolve, reject) => {
      timer = setTimeout(
        () => reject(new Error(`${main} did not listen within ${START_MS} ms:\n${log.slice(-10).join('\n')}`)),
        START_MS,
      );
      lines.on('line', line => {
        log.push(line);
        if (/"msg":"(agent|controller) listens"/.test(line)) resolve(line);
      });
      child.once('exit', code => reject(new Error(`${main} ended with ${code}:\n${log.slice(-10).join('\n')}`)));
    });
    const { url } = JSON.parse(await listening.finally(() => clearTimeout(timer))) as { url: string };
    service.url = url.replace('//0.0.0.0:', '//127.0.0.1:');
    port = Number(new URL(url).port);
    service.pid = child.pid!;
    service.token = readFileSync(join(stateDir, 'token'), 'utf8').trim();
  };
  const end = async (signal: 'SIGTERM' | 'SIGKILL') => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill(signal);
    const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
    await exited;
    clearTimeout(timer);
  };
  service.stop = () => end('SIGTERM');
  service.kill = () => end('SIGKILL');
  service[Symbol.asyncDispose] = service.stop;
  await service.start();
  return service;
}

export interface Cistern extends AsyncDisposable {
  folder: string;
  controller: Service;
  agents: Service[];
  api: Api;
  /** File with the API token, for the CLI. */
  tokenFile: string;
  /** Adds one more agent as the host `name`. */
  addAgent(name: string, settings?: Record<string, unknown>): Promise<Service>;
  /** A new folder below this one. */
  dir(name: string): string;
}

export interface CisternOptions {
  controller?: Record<string, unknown>;
  agent?: Record<string, unknown>;
  /** Names of the hosts; one agent each. */
  hosts?: string[];
  /** More environment variables of the services. */
  env?: { controller?: Record<string, string>; agents?: Record<string, string> };
}

/** Starts a controller and one agent for each host, added and connected. Agents may import from loopback. */
export async function startCistern(folder: string, options: CisternOptions = {}): Promise<Cistern> {
  await using stack = new AsyncDisposableStack();
  const controller = stack.use(
    await startService(
      'controller/main.ts',
      join(folder, 'controller'),
      { heartbeatSeconds: 1, ...options.controller },
      options.env?.controller,
    ),
  );
  const api = createClient(controllerRoutes, {
    baseUrl: controller.url,
    token: controller.token,
    timeoutSeconds: 70,
    unreachable: 'CONTROLLER_UNREACHABLE',
  });
  stack.defer(() => api.close());
  const agents: Service[] = [];
  const addAgent = async (
    owner: AsyncDisposableStack,
    name: string,
    settings: Record<string, unknown> = {},
  ): Promise<Service> => {
    const agent = owner.use(
      await startService(
        'agent/main.ts',
        join(folder, name),
        {
          mountDir: join(folder, name, 'mnt'),
          importAllow: ['127.0.0.0/8'],
          ...options.agent,
          ...settings,
        },
        options.env?.agents,
      ),
    );
    agents.push(agent);
    await done(api.addHost({ body: { name, url: agent.url, token: agent.token } }, WAIT));
    return agent;
  };
  for (const name of options.hosts ?? ['host-1']) await addAgent(stack, name);
  const started = stack.move();
  return {
    folder,
    controller,
    agents,
    api,
    tokenFile: join(folder, 'controller/state/token'),
    addAgent: (name, settings) => addAgent(started, name, settings),
    dir(name) {
      const path = join(folder, name);
      mkdirSync(path, { recursive: true });
      return path;
    },
    [Symbol.asyncDispose]: () => started.disposeAsync(),
  };
}

/** Holds the answer to a request that starts an operation until that has ended. */
export const WAIT = { headers: { Prefer: 'wait=60' } };

/** The operation once it has succeeded; throws its problem where it has not. */
export async function done(starting: Promise<Operation>): Promise<Operation> {
  const operation = await starting;
  if (operation.state !== 'succeeded')
    throw new Error(`${operation.kind} is ${operation.state}: ${operation.error?.code} ${operation.error?.detail}`);
  return operation;
}
