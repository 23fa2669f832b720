import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import express from 'express';
import { agentRoutes } from '../../shared/contract/agent.ts';
import { reportRoutes } from '../../shared/contract/operations.ts';
import { NOBODY, requireToken } from '../../shared/http/auth.ts';
import { bindErrors, bindRoutes } from '../../shared/http/bind.ts';
import { type Client, createClient } from '../../shared/http/client.ts';
import { isFinal, type ReportBatch, type TaskReport } from '../../shared/task.ts';

const MAIN = fileURLToPath(new URL('../../agent/main.ts', import.meta.url));

/** Looks again until `look` returns something; fails after 15 s. */
export async function until<T>(what: string, look: () => T | undefined | false | Promise<T | undefined | false>): Promise<T> {
  const end = performance.now() + 15_000;
  for (;;) {
    const seen = await look();
    if (seen) return seen;
    assert.ok(performance.now() < end, `${what}: not seen within 15 s`);
    await delay(15);
  }
}

/** A real agent process with its state below `folder`. */
export class AgentProcess implements AsyncDisposable {
  readonly client: Client<typeof agentRoutes>;
  readonly child: ChildProcess;
  readonly url: string;
  readonly token: string;
  /** Its log, line by line. */
  readonly log: string[];

  private constructor(child: ChildProcess, url: string, token: string, log: string[]) {
    this.child = child;
    this.url = url;
    this.token = token;
    this.log = log;
    this.client = createClient(agentRoutes, { baseUrl: url, token });
  }

  static async start(
    folder: string,
    settings: Record<string, unknown> = {},
    where: { cwd?: string; env?: NodeJS.ProcessEnv } = {},
  ): Promise<AgentProcess> {
    const stateDir = join(folder, 'state');
    const file = join(folder, 'agent.json');
    writeFileSync(file, JSON.stringify({ port: 0, stateDir, mountDir: join(folder, 'mnt'), logLevel: 'debug', ...settings }));
    const child = spawn(process.execPath, [MAIN, '--config', file], { ...where, stdio: ['ignore', 'inherit', 'pipe'] });
    const log: string[] = [];
    createInterface({ input: child.stderr! }).on('line', line => log.push(line));
    const line = await until('the agent listens', () => {
      assert.equal(child.exitCode, null, `the agent ended: ${log.join('\n')}`);
      return log.find(text => text.includes('agent listens'));
    });
    const { url } = JSON.parse(line) as { url: string };
    return new AgentProcess(child, url, readFileSync(join(stateDir, 'token'), 'utf8').trim(), log);
  }

  /** The task once it has ended. */
  ended = (id: string): Promise<TaskReport> =>
    until(`the end of task ${id}`, async () => {
      const task = await this.client.getTask({ params: { id } });
      return isFinal(task.state) && task;
    });

  running = (id: string): Promise<TaskReport> =>
    until(`task ${id} runs`, async () => {
      const task = await this.client.getTask({ params: { id } });
      return task.state === 'running' && task;
    });

  /** Process id of the worker of a pool. */
  worker(key: string): number | undefined {
    const children = readFileSync(`/proc/${this.child.pid}/task/${this.child.pid}/children`, 'utf8').trim().split(' ');
    const found = children.find(pid => pid !== '' && readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').includes(key));
    return found === undefined ? undefined : Number(found);
  }

  async kill(): Promise<void> {
    this.child.kill('SIGKILL');
    await once(this.child, 'exit');
  }

  /** Ends it by SIGTERM; returns its exit code. */
  async stop(): Promise<number | null> {
    if (this.child.exitCode === null && this.child.signalCode === null) {
      const exit = once(this.child, 'exit');
      this.child.kill('SIGTERM');
      await exit;
    }
    this.client.close();
    return this.child.exitCode;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

/** A server that takes connections and never says a word: what talks to it hangs. */
export async function silentServer(): Promise<AsyncDisposable & { port: number }> {
  const sockets = new Set<Socket>();
  const server = createServer(socket => sockets.add(socket.on('error', () => undefined)));
  await once(server.listen(0, '127.0.0.1'), 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await once(server.close(), 'close');
    },
  };
}

/** Takes reports as the controller does. */
export async function reportReceiver(
  token: string,
  batches: ReportBatch[],
  port = 0,
): Promise<AsyncDisposable & { port: number; url: string }> {
  const app = express();
  const postReports = ({ body }: { body: ReportBatch }) => (batches.push(body), { acked: body.seq });
  bindRoutes(app, reportRoutes, { postReports }, { authenticate: requireToken(token, NOBODY) });
  bindErrors(app, error => assert.fail(error as Error));
  const server = app.listen(port, '127.0.0.1');
  await once(server, 'listening');
  const bound = (server.address() as AddressInfo).port;
  return {
    port: bound,
    url: `http://127.0.0.1:${bound}`,
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}
