import Mocha from 'mocha';

/** mocha's spec reporter, except that its totals are left out: the run prints them once, over all files. */
export class FileReporter extends Mocha.reporters.Spec {
  override epilogue(): void {
    if (this.failures.length > 0) listFailures(this.failures);
    Mocha.reporters.Base.consoleLog();
  }
}

/** Missing in mocha's types: https://mochajs.org/api/mocha.reporters.base#.list */
const { list: listFailures } = Mocha.reporters.Base as unknown as { list(failures: Mocha.Test[]): void };
