import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import type { Cistern } from '../servers/cistern.ts';

/** The command as npm links it. */
export const COMMAND = join(import.meta.dirname, '../../controller/cli/cistern.js');

export interface Result {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

export interface CliProcess {
  child: ChildProcess;
  ended: Promise<Result>;
  /** Resolves once what it has printed on either stream holds `text`; throws when it ends before. */
  prints(text: string): Promise<void>;
}

/** Environment of a user of `cistern`; nothing of the machine's own configuration is read. */
export const userEnv = (cistern: Pick<Cistern, 'controller' | 'tokenFile' | 'folder'>): NodeJS.ProcessEnv => ({
  PATH: process.env.PATH,
  HOME: cistern.folder,
  TERM: 'xterm',
  CISTERN_URL: cistern.controller.url,
  CISTERN_TOKEN_FILE: cistern.tokenFile,
});

/** Starts a program and keeps what it prints. */
export function startProgram(file: string, args: string[], env: NodeJS.ProcessEnv): CliProcess {
  const child = spawn(file, args, { env, stdio: ['pipe', 'pipe', 'pipe'] });
  let stdout = '';
  let stderr = '';
  let over = false;
  const waiting = new Set<() => void>();
  const wake = (): void => waiting.forEach(check => check());
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
    wake();
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
    wake();
  });
  // a command that ends before it has read its input is no error of the test
  child.stdin.on('error', () => undefined);
  const ended = once(child, 'close').then(([code, signal]: unknown[]): Result => {
    over = true;
    wake();
    return { code: code as number | null, signal: signal as NodeJS.Signals | null, stdout, stderr };
  });
  const prints = (text: string): Promise<void> =>
    new Promise((resolve, reject) => {
      const check = (): void => {
        if ((stdout + stderr).includes(text)) resolve();
        else if (over) reject(new Error(`"${text}" was not printed before the end:\n${stdout}\n${stderr}`));
        else return;
        waiting.delete(check);
      };
      waiting.add(check);
      check();
    });
  return { child, ended, prints };
}

/** Starts `cistern` under this Node. */
export const startCommand = (cistern: Cistern, ...args: string[]): CliProcess =>
  startProgram(process.execPath, [COMMAND, ...args], userEnv(cistern));

/** Runs `cistern` to its end, with nothing on its standard input. */
export function runCommand(cistern: Cistern, ...args: string[]): Promise<Result> {
  const started = startCommand(cistern, ...args);
  started.child.stdin!.end();
  return started.ended;
}
