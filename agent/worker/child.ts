import { fork } from 'node:child_process';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import type { Logger } from '../../shared/log.ts';
import { makeWorkerFolder } from './folders.ts';
import type { FromWorker, InitWorker, ToWorker } from './protocol.ts';

/** A worker process as the agent sees it. */
export interface Child {
  pid: number | undefined;
  /** A message that does not arrive is no error here: the process is gone then, and `gone` says so. */
  send(message: ToWorker): void;
  /** Tells it that it is not needed any more: it aborts what it does, cleans up and ends. */
  end(): void;
  /** Ends it and its children at once. */
  kill(): void;
}

export interface ChildEvents {
  message(message: FromWorker): void;
  /** Once, after the last message: with the exit code or signal, or that it does not even react to SIGKILL (blocked in the kernel). */
  gone(how: string): void;
}

const ENTRY = fileURLToPath(new URL('./main.ts', import.meta.url));
const KILL_MS = 5000;
const END_MS = 10_000;
const LAST_WORDS_MS = 1000;
const LINE_LIMIT = 4000;

/** Starts a worker process. What it prints goes to the log; nothing of a command is in its arguments or environment. */
export function spawnChild(key: string, init: InitWorker, events: ChildEvents, log: Logger): Child {
  // compiled code, types stripped, is kept: a worker then starts in half the time and with a third less memory
  const cacheDir = join(init.config.stateDir, 'compile-cache');
  const folder = makeWorkerFolder(init.config.stateDir);
  const { NOTIFY_SOCKET: _socket, WATCHDOG_USEC: _usec, ...env } = process.env;
  const child = fork(ENTRY, [key], {
    serialization: 'advanced',
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    // what a transfer allocates dies young: a larger nursery only takes memory
    execArgv: ['--max-semi-space-size=1', '--optimize-for-size'],
    // a heap arena for each of many threads is what glibc would make: 30 MB that a transfer does not need
    env: { NODE_COMPILE_CACHE: cacheDir, MALLOC_ARENA_MAX: '2', ...env, TMPDIR: folder },
  });
  let over = false;

  const gone = (how: string): void => {
    if (over) return;
    over = true;
    killGroup(child.pid);
    child.removeAllListeners('message');
    if (child.connected) child.disconnect();
    child.unref();
    rm(folder, { recursive: true, force: true }).catch((error: unknown) =>
      log.error({ err: error, worker: key }, 'the temporary files of a worker cannot be removed'),
    );
    events.gone(how);
  };
  child.on('message', message => events.message(message as FromWorker));
  child.on('error', error => {
    if (child.pid === undefined) gone(`could not be started: ${error.message}`);
  });
  child.on('exit', (code, signal) => {
    const how = signal ? `was ended by ${signal}` : `exited with code ${code}`;
    // messages that it sent before may still be in the pipe
    if (!child.connected) return gone(how);
    child.once('disconnect', () => gone(how));
    setTimeout(() => gone(how), LAST_WORDS_MS).unref();
  });
  for (const stream of [child.stdout, child.stderr])
    if (stream) logLines(stream, line => log.warn({ worker: key, pid: child.pid }, line));

  const send = (message: ToWorker): void => {
    if (child.connected) child.send(message, () => undefined);
  };
  const kill = (): void => {
    if (over) return;
    killGroup(child.pid);
    setTimeout(
      () => gone('does not end: it is blocked in the kernel, most likely by a storage that does not answer'),
      KILL_MS,
    ).unref();
  };
  const end = (): void => {
    if (child.connected) child.disconnect();
    setTimeout(kill, END_MS).unref();
  };
  send(init);
  return { pid: child.pid, send, end, kill };
}

/** The worker leads a process group; its members are its qemu-img and ssh children. */
function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

function logLines(stream: Readable, print: (line: string) => void): void {
  createInterface({ input: stream }).on('line', line => print(line.slice(0, LINE_LIMIT)));
}
