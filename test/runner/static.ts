import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';

const BIN = join(import.meta.dirname, '..', '..', 'node_modules', '.bin');

/** What a check has seen is not read again until it changes; a clean checkout, as in CI, has nothing of it. */
const KEPT = '.cache/static';

/** The checks that run nothing: each counts as one test. */
export const STATIC_CHECKS = [
  {
    name: 'prettier',
    argv: ['prettier', '--check', '--log-level', 'warn', '--cache', '--cache-location', `${KEPT}/prettier`, '.'],
    hint: 'npm run format',
  },
  {
    name: 'eslint',
    argv: ['eslint', '--max-warnings', '0', '--cache', '--cache-strategy', 'content', '--cache-location', `${KEPT}/eslint`, '.'],
    hint: 'npm run lint',
  },
  {
    name: 'tsc',
    argv: ['tsc', '--noEmit', '--incremental', '--tsBuildInfoFile', `${KEPT}/tsc.json`],
    hint: 'node_modules/.bin/tsc --noEmit',
  },
] as const;

/** Generous: it is there for a check that hangs, not for a slow machine. */
const DEADLINE = 10 * 60_000;

export type StaticCheck = (typeof STATIC_CHECKS)[number];

/** Runs a check; `ok` is its exit code, `output` what it said. */
export async function runStatic(
  check: StaticCheck,
  root: string,
  signal: AbortSignal,
): Promise<{ ok: boolean; output: string; seconds: number }> {
  const started = performance.now();
  const [program, ...args] = check.argv;
  const child = spawn(join(BIN, program), args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'], signal, timeout: DEADLINE });
  const output: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => output.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => output.push(chunk));
  try {
    await once(child, 'close');
  } catch (error) {
    output.push(Buffer.from(`${check.argv.join(' ')}: ${(error as Error).message}\n`));
  }
  if (child.signalCode) output.push(Buffer.from(`${check.name} was ended by ${child.signalCode}\n`));
  return { ok: child.exitCode === 0, output: Buffer.concat(output).toString(), seconds: (performance.now() - started) / 1000 };
}
