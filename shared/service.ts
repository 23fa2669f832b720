import { once } from 'node:events';
import { existsSync } from 'node:fs';
import type { RequestListener } from 'node:http';
import { flushCompileCache } from 'node:module';
import type { AddressInfo } from 'node:net';
import { parseArgs } from 'node:util';
import type { z } from 'zod';
import { loadConfig } from './config.ts';
import { CisternError, toProblem } from './errors.ts';
import { LIMITS, withLimits } from './http/limits.ts';
import { createLog, type Logger } from './log.ts';
import { createNotifier } from './systemd.ts';
import { createDoor, type ServerTls } from './tls/door.ts';
import { isLoopback } from './tls/names.ts';

/** A service that runs in this process. */
export interface Running {
  url: string;
  /** Safe to call twice. */
  stop(): Promise<void>;
}

/** Starting again does not help against these: they end a service with 65 (EX_DATAERR of sysexits.h), which its systemd unit leaves alone. */
const DAMAGE: ReadonlySet<string> = new Set(['DATABASE_DAMAGED', 'KEY_DAMAGED']);

/** Answers under way when a service stops may take so long to end. */
const CLOSE_MS = 1000;

export interface Served extends AsyncDisposable {
  url: string;
  port: number;
  /** New connections are shown another certificate from now on. */
  renew(tls: ServerTls): void;
}

/** Serves `app` over TLS, and over plain HTTP on loopback, until it is disposed of; port 0 takes any free one. */
export async function serve(
  app: RequestListener,
  { listen, port }: { listen: string; port: number },
  tls?: ServerTls,
): Promise<Served> {
  if (!tls && !isLoopback(listen))
    throw new CisternError(
      'TLS_REQUIRED',
      `listening on ${listen}: this host has not joined a controller, so it has no certificate`,
    );
  const door = createDoor(withLimits(app), tls);
  const { server } = door;
  // a burst of as many as may be connected is not dropped while they are taken up; the kernel's limit is net.core.somaxconn
  server.listen({ port, host: listen, backlog: LIMITS.connections });
  try {
    await once(server, 'listening');
  } catch (cause) {
    throw new CisternError('BAD_REQUEST', `listening on ${listen} port ${port}: ${(cause as Error).message}`, {
      cause,
      action: 'Set listen and port to an address of this machine that is free.',
    });
  }
  const bound = (server.address() as AddressInfo).port;
  return {
    url: `http${tls?.only ? 's' : ''}://${listen.includes(':') ? `[${listen}]` : listen}:${bound}`,
    port: bound,
    renew: door.renew,
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close');
      server.close();
      door.closeIdle();
      const cut = setTimeout(() => door.closeAll(), CLOSE_MS);
      await closed;
      clearTimeout(cut);
    },
  };
}

interface Service<T extends z.ZodObject> {
  /** Such as `cistern-agent`: in logs and messages. */
  name: string;
  config: T;
  /** Of environment variables; `PREFIX_CONFIG` names the file where `--config` does not. */
  prefix: string;
  defaultFile: string;
  start(config: z.output<T>, log: Logger): Promise<Running>;
}

/** The main function of a service process: settings, systemd, SIGTERM and SIGINT, and errors that say what to do. */
export async function runService<T extends z.ZodObject>(service: Service<T>): Promise<void> {
  try {
    const { values } = parseArgs({ options: { config: { type: 'string' } } });
    const fallback = existsSync(service.defaultFile) ? service.defaultFile : undefined;
    const file = values.config ?? process.env[`${service.prefix}_CONFIG`] ?? fallback;
    const config = loadConfig(service.config, service.prefix, file);
    const log = createLog(service.name, (config as { logLevel: string }).logLevel);
    const systemd = createNotifier(log);
    const running = await service.start(config, log);
    const stop = async (signal: string): Promise<void> => {
      log.info({ signal }, `${service.name} stops`);
      await Promise.all([systemd.stopping(), running.stop()]);
      log.info(`${service.name} has stopped`);
      process.exit(0);
    };
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => void stop(signal));
    await systemd.ready(`Serving ${running.url}`);
    // where compiled code is kept (NODE_COMPILE_CACHE), it is kept now: a process that crashes later could not
    flushCompileCache();
  } catch (error) {
    const { code, detail, action } = toProblem(error);
    process.stderr.write(`${service.name}: ${code}: ${detail}\n${action}\n`);
    process.exit(DAMAGE.has(code) ? 65 : 1);
  }
}
