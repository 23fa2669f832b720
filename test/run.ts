/**
 * Everything that is checked, by one command: static checks, then every `*.test.ts` in a process of its own. The last line is
 * `N passed, N failed`, and `, N skipped` where a test skipped itself. Exit code 1 for a failure, and in CI (CI=true) for a skip.
 */
import { globSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, relative } from 'node:path';
import { parseArgs } from 'node:util';
import { runFile } from './runner/run-file.ts';
import { runStatic, STATIC_CHECKS } from './runner/static.ts';

const ROOT = join(import.meta.dirname, '..');
/**
 * Files at once. Unit tests run side by side; those that start servers and move bytes one at a time, which keeps their deadlines honest.
 * Faults take most of the time and wait for most of theirs.
 */
const SUITES = { unit: Math.min(4, availableParallelism()), conformance: 1, e2e: 1, faults: Math.min(2, availableParallelism()) };
type Part = 'static' | keyof typeof SUITES;
const PARTS: readonly Part[] = ['static', 'unit', 'conformance', 'e2e', 'faults'];

const { only, grep, timeout, files } = options();
const interrupted = new AbortController();
for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => interrupted.abort(new Error(name)));
const { signal } = interrupted;
const total = { passed: 0, failed: 0, skipped: 0 };
const failures: string[] = [];

const wants = (part: Part): boolean => (only ? only === part : part !== 'static' || !(grep || files.length > 0));
if (wants('static')) await pool(STATIC_CHECKS, SUITES.unit, staticCheck);
for (const suite of Object.keys(SUITES) as (keyof typeof SUITES)[]) {
  if (!wants(suite)) continue;
  await pool(testFiles(suite), SUITES[suite], testFile);
}

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

async function testFile(file: string): Promise<void> {
  const report = await runFile(join(ROOT, file), { timeout, grace: 5_000, grep, signal });
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
