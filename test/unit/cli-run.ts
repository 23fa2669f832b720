import { PassThrough, Writable } from 'node:stream';
import { run } from '../../controller/cli/program.ts';
import { TOKEN } from './cli-samples.ts';

export interface CliRun {
  code: Promise<number>;
  stdout(): string;
  stderr(): string;
  stdin: PassThrough;
  interrupt(): void;
  /** Resolves once standard error holds `text`. */
  stderrHas(text: string): Promise<void>;
  stdoutHas(text: string): Promise<void>;
}

/** The command line in this process, with streams of its own. `terminal` makes them look like one. */
export function startCli(args: string[], env: NodeJS.ProcessEnv, terminal = false): CliRun {
  const listeners = new Set<() => void>();
  const out = sink(terminal);
  const err = sink(terminal);
  const stdin = Object.assign(new PassThrough(), { isTTY: terminal });
  const code = run(args, {
    stdout: out.stream,
    stderr: err.stream,
    stdin,
    env,
    onInterrupt: listener => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  });
  return {
    code,
    stdout: out.text,
    stderr: err.text,
    stdin,
    interrupt: () => [...listeners].forEach(listener => listener()),
    stderrHas: err.has,
    stdoutHas: out.has,
  };
}

/** Runs the command line against `controller` to its end. */
export async function cli(
  controller: { url: string },
  ...args: string[]
): Promise<{ code: number; stdout: string; stderr: string }> {
  const started = startCli(args, envFor(controller));
  return { code: await started.code, stdout: started.stdout(), stderr: started.stderr() };
}

export const envFor = (controller: { url: string }): NodeJS.ProcessEnv => ({
  HOME: '/nonexistent',
  CISTERN_URL: controller.url,
  CISTERN_TOKEN: TOKEN,
});

function sink(terminal: boolean) {
  let text = '';
  const waiting = new Set<() => void>();
  const stream = Object.assign(
    new Writable({
      write: (chunk: Buffer, _encoding, done) => {
        text += chunk.toString();
        waiting.forEach(check => check());
        done();
      },
    }),
    { isTTY: terminal, columns: 100, cursorTo: () => true, moveCursor: () => true, clearLine: () => true },
  );
  const has = (wanted: string): Promise<void> =>
    new Promise(resolve => {
      const check = (): void => {
        if (!text.includes(wanted)) return;
        waiting.delete(check);
        resolve();
      };
      waiting.add(check);
      check();
    });
  return { stream, text: () => text, has };
}
