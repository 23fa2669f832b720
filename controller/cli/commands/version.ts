import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { toProblem } from '../../../shared/errors.ts';
import { leaf, type Runtime } from '../command.ts';

/** The version in package.json, which command line, controller and agent share. */
export function cliVersion(): string {
  const { version } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')) as { version: string };
  return version;
}

/** `cistern version`: of this command and of the controller. */
export function addVersionCommand(runtime: Runtime, program: Command): void {
  leaf(runtime, program, {
    usage: 'version',
    summary: 'Show the versions of this command and of the controller',
    examples: ['version'],
    action: async call => {
      const cli = cliVersion();
      const { url } = call.connection;
      try {
        const { version } = await call.client.healthz(undefined, { timeoutSeconds: 5 });
        call.out.show({ cli, controller: version, url }, [
          ['cistern', cli],
          ['controller', `${version} at ${url}`],
        ]);
      } catch (error) {
        // the version of the command is known without a controller
        const why = toProblem(error).detail;
        call.out.show({ cli, controller: null, url, reason: why }, [
          ['cistern', cli],
          ['controller', `no answer: ${why}`],
        ]);
      }
    },
  });
}
