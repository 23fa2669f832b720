/** `node test/runner/file.ts FILE TIMEOUT_MS GREP COLOR`: runs one test file, and tells the parent process how it went. */
import Mocha from 'mocha';
import { FileReporter } from './reporter.ts';

export interface FileResult {
  passed: number;
  failed: number;
  skipped: number;
  /** What failed and how, for the end of the run: a long log may have lost its beginning. */
  failures: string[];
}

const [file, timeout, grep, color] = process.argv.slice(2);
const mocha = new Mocha({
  timeout: Number(timeout),
  forbidOnly: true,
  reporter: FileReporter,
  ...(grep && { grep }),
});
Mocha.reporters.Base.useColors = color === 'color';
mocha.addFile(file!);
await mocha.loadFilesAsync();
const result: FileResult = { passed: 0, failed: 0, skipped: 0, failures: [] };
const runner = mocha.run(() => {
  process.exitCode = result.failed > 0 ? 1 : 0;
  process.send?.(result, () => process.disconnect?.());
});
runner.on('pass', () => result.passed++);
runner.on('fail', (test: Mocha.Runnable | Mocha.Hook, error: unknown) => {
  result.failed++;
  result.failures.push(`${test.fullTitle()}\n${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
});
runner.on('pending', () => result.skipped++);
