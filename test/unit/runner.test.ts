import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runFile, type FileReport } from '../runner/run-file.ts';

describe('the test run: one file', () => {
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'runner-'));
  });
  after(() => rm(folder, { recursive: true }));

  /** Runs a test file that holds `source`. */
  async function run(source: string): Promise<FileReport> {
    const file = join(folder, 'case.test.mjs');
    await writeFile(file, `import { spawn } from 'node:child_process';\n${source}`);
    return runFile(file, { timeout: 2_000, grace: 300, grep: '', deadline: 60_000, signal: new AbortController().signal });
  }
  const counts = ({ passed, failed, skipped }: FileReport) => ({ passed, failed, skipped });

  it('counts what passed, failed and was skipped, and shows why it failed', async () => {
    const report = await run(`it('a', () => {}); it('b', () => { throw new Error('the reason') }); it('c');`);
    assert.deepEqual(counts(report), { passed: 1, failed: 1, skipped: 1 });
    assert.match(report.output, /the reason/);
  });

  it('fails a file that does not load', async () => {
    const report = await run(`throw new Error('broken at the top');`);
    assert.deepEqual(counts(report), { passed: 0, failed: 1, skipped: 0 });
    assert.match(report.output, /broken at the top/);
  });

  it('fails a file that ends in the middle of its tests', async () => {
    const report = await run(`it('a', () => process.exit(0)); it('b', () => {});`);
    assert.equal(report.failed, 1);
  });

  it('fails a test that takes longer than its deadline', async () => {
    const report = await run(`it('a', function () { this.timeout(50); return new Promise(r => setTimeout(r, 200)); });`);
    assert.deepEqual(counts(report), { passed: 0, failed: 1, skipped: 0 });
  });

  it('refuses a forgotten "only"', async () => {
    const report = await run(`it('a', () => {}); it.${'only'}('b', () => {});`);
    assert.ok(report.failed > 0, report.output);
  });

  it('fails a file whose process stays alive after its tests', async () => {
    const report = await run(`it('a', () => { setInterval(() => {}, 1000); });`);
    assert.deepEqual(counts(report), { passed: 1, failed: 1, skipped: 0 });
    assert.match(report.output, /kept the process of the file alive/);
  });

  it('names and ends a process that a file leaves behind, also one that left its session', async () => {
    const report = await run(`it('a', () => {
      spawn('sleep', ['77'], { stdio: 'ignore' }).unref();
      const daemon = spawn('sleep', ['78'], { stdio: 'ignore', detached: true });
      daemon.unref();
      console.log('daemon', daemon.pid);
    });`);
    assert.deepEqual(counts(report), { passed: 1, failed: 2, skipped: 0 });
    assert.match(report.output, /left behind: process \d+: sleep 77/);
    assert.match(report.output, /left behind: process \d+: sleep 78/);
    assert.equal(isAlive(/daemon (\d+)/.exec(report.output)![1]!), false);
  });

  it('gives each file its own folder for temporary files, and removes it', async () => {
    const report = await run(`import { mkdtempSync } from 'node:fs'; import { tmpdir } from 'node:os';
      it('a', () => { console.log('made', mkdtempSync(tmpdir() + '/x')); });`);
    const made = /made (\S+)/.exec(report.output)![1]!;
    assert.equal(report.passed, 1);
    assert.equal(existsSync(join(made, '..')), false);
  });

  it('ends a file when the run is interrupted', async () => {
    const file = join(folder, 'long.test.mjs');
    await writeFile(file, `it('a', () => new Promise(r => setTimeout(r, 60_000))).timeout(0);`);
    const report = await runFile(file, { timeout: 0, grace: 300, grep: '', deadline: 60_000, signal: AbortSignal.timeout(500) });
    assert.ok(report.seconds < 10);
    assert.equal(report.failed, 1);
  });
});

/** A killed process may stay for a while as a zombie, until its new parent asks for it. */
const isAlive = (pid: string): boolean =>
  existsSync(`/proc/${pid}`) && !/^State:\tZ/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
