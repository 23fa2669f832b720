/** Programs that serve on a loopback port, as tests start and end them. */
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createConnection, createServer } from 'node:net';
import { join } from 'node:path';
import { execa } from 'execa';
import { descendants } from './processes.ts';

const READY_MS = 60_000;

export interface Daemon {
  /** Ends it and all that it started, as a power cut would. */
  kill(): Promise<void>;
}

/** Starts a program and waits until its port takes connections; its output goes into `folder`, and into the error when it fails. */
export async function startDaemon(
  folder: string,
  port: number,
  argv: readonly [string, ...string[]],
  env: Record<string, string> = {},
): Promise<Daemon> {
  const log = join(folder, `${argv[0].split('/').at(-1)!}-${port}.log`);
  const child = execa(argv[0], argv.slice(1), {
    stdin: 'ignore',
    stdout: { file: log },
    stderr: { file: log },
    reject: false,
    cleanup: true,
    env,
  });
  let ended = false;
  void child.then(() => (ended = true));
  const kill = async (): Promise<void> => {
    const { pid } = child;
    if (pid !== undefined && !ended) {
      for (const one of [...(await descendants(pid)), pid]) {
        try {
          process.kill(one, 'SIGKILL');
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error; // it ended meanwhile
        }
      }
    }
    await child;
  };
  const deadline = performance.now() + READY_MS;
  while (!(await answers(port))) {
    if (!ended && performance.now() < deadline) {
      await new Promise(resolve => setTimeout(resolve, 20));
      continue;
    }
    await kill();
    throw new Error(`starting ${argv.join(' ')}: it does not serve\n${await readFile(log, 'utf8').catch(() => '')}`);
  }
  return { kill };
}

/** Ports that nobody uses, all different. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'));
  const ports: number[] = [];
  for (const server of servers) {
    if (!server.listening) await once(server, 'listening');
    ports.push((server.address() as { port: number }).port);
  }
  await Promise.all(servers.map(server => new Promise(closed => server.close(closed))));
  return ports;
}

function answers(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = createConnection({ port, host: '127.0.0.1' });
    socket.once('error', () => resolve(false));
    socket.once('connect', () => {
      resolve(true);
      socket.destroy();
    });
  });
}
