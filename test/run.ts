/**
 * Everything that is checked, by one command: static checks, then every `*.test.ts` in a process of its own. The last line is
 * `N passed, N failed`, and `, N skipped` where a test skipped itself. Exit code 1 for a failure, and in CI (CI=true) for a skip.
 */
import { globSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, relative } from 'node:path';
import { parseArgs } from 'node:util';
import { debian } from './lab/image.ts';
import { runFile } from './runner/run-file.ts';
import { runStatic, STATIC_CHECKS } from './runner/static.ts';

const ROOT = join(import.meta.dirname, '..');
/** Hosts of the lab have a network of their own, and processes that all end with the first. */
const NAMESPACES = ['unshare', '--net', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc', '--'];
const MINUTE = 60_000;
/**
 * `width`: files at once. Unit tests run side by side; those that start servers and move bytes one at a time, which keeps their deadlines honest.
 * Faults take most of the time and wait for most of theirs.
 */
const SUITES = {
  unit: { width: Math.min(4, availableParallelism()), deadline: 10 * MINUTE },
  conformance: { width: 1, deadline: 10 * MINUTE },
  e2e: { width: 1, deadline: 10 * MINUTE },
  faults: { width: Math.min(2, availableParallelism()), deadline: 10 * MINUTE },
  lab: { width: 1, deadline: 15 * MINUTE, inside: NAMESPACES, prepare: debian },
};
type Suite = keyof typeof SUITES;
type Part = 'static' | Suite;
const PARTS: readonly Part[] = ['static', 'unit', 'conformance', 'e2e', 'faults', 'lab'];

const { only, grep, timeout, files } = options();
const interrupted = new AbortController();
for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => interrupted.abort(new Error(name)));
const { signal } = interrupted;
const total = { passed: 0, failed: 0, skipped: 0 };
const failures: string[] = [];

/** The lab is for who asks for it: its hosts are slow, and want much of the machine. */
const wants = (part: Part): boolean =>
  part === 'lab' ? only === 'lab' : only ? only === part : part !== 'static' || !(grep || files.length > 0);
if (wants('static')) await pool(STATIC_CHECKS, SUITES.unit.width, staticCheck);
for (const suite of Object.keys(SUITES) as Suite[]) if (wants(suite)) await runSuite(suite);

if (signal.aborted) console.log(`\ninterrupted by ${(signal.reason as Error).message}: what follows is not the whole`);
if (total.passed + total.failed + total.skipped === 0) {
  console.log('no test fits');
  total.failed++;
}
// Once more at the end: of a long log often only that is kept.
if (failures.length > 0) console.log(`\nfailed:\n\n${failures.join('\n\n')}`);
const skipFails = process.env.CI === 'true' && total.skipped > 0;
if (skipFails) console.log('\nskipped tests fail in CI: give the machine what they need');
process.exitCode = signal.aborted ? 130 : total.failed > 0 || skipFails ? 1 : 0;
console.log(`\n${total.passed} passed, ${total.failed} failed${total.skipped > 0 ? `, ${total.skipped} skipped` : ''}`);

function options() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { only: { type: 'string' }, grep: { type: 'string', default: '' }, timeout: { type: 'string', default: '60' } },
  });
  const part = PARTS.find(p => p === values.only);
  const seconds = Number(values.timeout);
  if ((values.only !== undefined && !part) || !(seconds > 0)) {
    console.error(`usage: npm test -- [--only ${PARTS.join('|')}] [--grep WORDS] [--timeout SECONDS] [PART_OF_FILE_NAME...]`);
    process.exit(2);
  }
  return { only: part, grep: values.grep, timeout: seconds * 1000, files: positionals };
}

async function runSuite(suite: Suite): Promise<void> {
  const found = testFiles(suite);
  const options: (typeof SUITES)[Suite] & { prepare?: () => Promise<unknown> } = SUITES[suite];
  try {
    if (found.length > 0) await options.prepare?.();
  } catch (error) {
    total.failed++;
    failures.push(`preparing ${suite}: ${(error as Error).message}`);
    return;
  }
  await pool(found, options.width, file => testFile(file, options));
}

function testFiles(suite: string): string[] {
  const found = globSync(`test/${suite}/**/*.test.ts`, { cwd: ROOT }).sort();
  return files.length > 0 ? found.filter(file => files.some(part => file.includes(part))) : found;
}

async function staticCheck(check: (typeof STATIC_CHECKS)[number]): Promise<void> {
  const { ok, output, seconds } = await runStatic(check, ROOT, signal);
  total[ok ? 'passed' : 'failed']++;
  console.log(`${ok ? '✔' : '✗'} ${check.name} (${seconds.toFixed(1)} s)`);
  if (ok) return;
  console.log(`${output}  try: ${check.hint}`);
  failures.push(`${check.name}\n${output}`);
}

async function testFile(file: string, { deadline, inside }: { deadline: number; inside?: readonly string[] }): Promise<void> {
  const report = await runFile(join(ROOT, file), { timeout, grace: 5_000, grep, deadline, inside, signal });
  for (const key of ['passed', 'failed', 'skipped'] as const) total[key] += report[key];
  failures.push(...report.failures.map(words => `${relative('test', file)}: ${words}`));
  if (grep && report.passed + report.failed === 0) return;
  console.log(`${report.failed > 0 ? '✗' : '✔'} ${relative('test', file)} (${report.seconds.toFixed(1)} s)`);
  console.log(report.output.replace(/^\n+/, '').trimEnd());
}

/** Works through `items`, `width` at a time. */
async function pool<T>(items: readonly T[], width: number, work: (item: T) => Promise<void>): Promise<void> {
  const rest = [...items];
  const lane = async (): Promise<void> => {
    for (let item = rest.shift(); item !== undefined && !signal.aborted; item = rest.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: width }, lane));
}
