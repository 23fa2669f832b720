import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { FileResult } from './file.ts';
import { findLeftovers, type Leftover, type Mark } from './leftovers.ts';

export interface RunOptions {
  /** Milliseconds for one test. */
  timeout: number;
  /** Milliseconds that the process may go on after its last test, and what it started after it. */
  grace: number;
  grep: string;
  /** Milliseconds for the file as a whole. */
  deadline: number;
  /** Words of a program that runs it, if any. */
  inside?: readonly string[];
  /** Aborted: the file's processes are ended. */
  signal: AbortSignal;
}

export interface FileReport extends FileResult {
  output: string;
  seconds: number;
}

/**
 * Runs one test file in a process, a session and a temporary folder of its own. Besides failed tests, these count as one failure
 * each: a file that does not load, one that does not end, and one that leaves a process or a mount behind.
 */
export async function runFile(file: string, options: RunOptions): Promise<FileReport> {
  const { timeout, grace, grep, inside = [] } = options;
  const started = performance.now();
  const folder = await mkdtemp(join(tmpdir(), 'cistern-'));
  await chmod(folder, 0o755); // servers that tests start may run as another user
  const color = process.stdout.isTTY ? 'color' : '';
  const words = [...inside, process.execPath, join(import.meta.dirname, 'file.ts'), file, String(timeout), grep, color];
  const child = spawn(words[0]!, words.slice(1), {
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    // NO_COLOR: what the tests see does not depend on the terminal.
    env: { ...process.env, TMPDIR: folder, NO_COLOR: '1' },
  });
  const mark: Mark = { session: child.pid ?? -1, folder };
  const output: Buffer[] = [];
  child.stdout!.on('data', (chunk: Buffer) => output.push(chunk));
  child.stderr!.on('data', (chunk: Buffer) => output.push(chunk));
  const result: FileResult = { passed: 0, failed: 0, skipped: 0, failures: [] };
  const fault = (words: string): void => {
    result.failed++;
    result.failures.push(words);
    output.push(Buffer.from(`  ✗ ${words}\n`));
  };
  const told = await ended(child, options, fault);
  if (told) {
    const { passed, skipped } = told;
    const failures = [...told.failures, ...result.failures];
    Object.assign(result, { passed, skipped, failed: result.failed + told.failed, failures });
  } else if (result.failed === 0)
    fault(`the file ended with ${child.signalCode ?? `exit code ${child.exitCode}`} before its tests did`);
  const left = await settle(mark, grace);
  for (const { what } of left) fault(`left behind: ${what}`);
  for (const { pid } of left) if (pid !== undefined) kill(pid);
  if (left.length > 0) await settle(mark, grace);
  if (!left.some(({ pid }) => pid === undefined)) await rm(folder, { recursive: true, force: true, maxRetries: 5 });
  return { ...result, output: Buffer.concat(output).toString(), seconds: (performance.now() - started) / 1000 };
}

/** Waits for the end of the file's process; undefined where it never told a result. */
async function ended(
  child: ChildProcess,
  { grace, deadline, signal }: RunOptions,
  fault: (words: string) => void,
): Promise<FileResult | undefined> {
  let told: FileResult | undefined;
  const stop = (): void => kill(-child.pid!);
  const late = (words: string) => (): void => {
    fault(words);
    stop();
  };
  let timer = setTimeout(late(`the file did not end within ${deadline / 60_000} minutes`), deadline);
  child.on('message', message => {
    told = message as FileResult;
    clearTimeout(timer);
    timer = setTimeout(
      late(
        `something kept the process of the file alive ${grace / 1000} s after its last test (an open server, socket or timer)`,
      ),
      grace,
    );
  });
  signal.addEventListener('abort', stop);
  // `exit`, not `close`: a child that outlives the file may hold its output open, and is to be found as left behind.
  await once(child, 'exit');
  clearTimeout(timer);
  signal.removeEventListener('abort', stop);
  return told;
}

/** What is still there once the processes that are just ending have had their time. */
async function settle(mark: Mark, grace: number): Promise<Leftover[]> {
  const until = performance.now() + grace;
  let left = findLeftovers(mark);
  while (left.length > 0 && performance.now() < until) {
    await sleep(100);
    left = findLeftovers(mark);
  }
  return left;
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
