import { Command, CommanderError } from 'commander';
import { commonOptions, finishCommands, type Runtime } from './command.ts';
import { addBackupStorageCommands } from './commands/backup-storage.ts';
import { addClusterCommands } from './commands/cluster.ts';
import { addCompletionCommands } from './commands/completion.ts';
import { addControllerCommands } from './commands/controller.ts';
import { addEventCommands } from './commands/event.ts';
import { addHostCommands } from './commands/host.ts';
import { addImageCommands } from './commands/image.ts';
import { addOperationCommands } from './commands/operation.ts';
import { addPrimaryStorageCommands } from './commands/primary-storage.ts';
import { addStatusCommand } from './commands/status.ts';
import { addTokenCommands } from './commands/token.ts';
import { addTrashCommands } from './commands/trash.ts';
import { addVersionCommand, cliVersion } from './commands/version.ts';
import { addVolumeCommands } from './commands/volume.ts';
import type { Io } from './io.ts';
import { exitCodeOf, printError } from './output.ts';

const HELP = `
The controller is found by --url, CISTERN_URL, "url" in ~/.config/cistern/config.json, else http://127.0.0.1:7070;
its token by --token-file, CISTERN_TOKEN, CISTERN_TOKEN_FILE, "tokenFile" in that file, else /var/lib/cistern-controller/token.
Exit codes: 0 done, 1 failed, 2 wrong usage, 130 cancelled or interrupted.

Examples:
  cistern status
  cistern image import debian12 --url https://example.org/debian12.qcow2
  cistern volume create web --image debian12 --count 3
  cistern volume list --output json`;

/** The whole command line, with all its commands. */
export function buildProgram(runtime: Runtime): Command {
  const program = new Command('cistern')
    .description('Storage for KVM hosts: images, volumes, and where they lie')
    .version(cliVersion(), '-V, --version')
    .enablePositionalOptions()
    .helpCommand(false)
    .exitOverride()
    .configureOutput({
      writeOut: text => void runtime.io.stdout.write(text),
      writeErr: text => void runtime.io.stderr.write(text),
      outputError: (text, write) => write(text.replace(/^error: /, 'cistern: ')),
      getOutHelpWidth: () => runtime.io.stdout.columns || 100,
      getErrHelpWidth: () => runtime.io.stderr.columns || 100,
    })
    .addHelpText('after', HELP);
  for (const option of commonOptions()) program.addOption(option);
  const nouns = [
    addStatusCommand,
    addHostCommands,
    addClusterCommands,
    addPrimaryStorageCommands,
    addBackupStorageCommands,
    addImageCommands,
    addVolumeCommands,
    addTrashCommands,
    addOperationCommands,
    addEventCommands,
    addTokenCommands,
    addControllerCommands,
  ];
  for (const add of [...nouns, addCompletionCommands, addVersionCommand]) add(runtime, program);
  for (const noun of program.commands) finishCommands(runtime, noun);
  return program;
}

/** Runs one command line (without the program's name) and returns its exit code. */
export async function run(args: string[], io: Io): Promise<number> {
  let code = 0;
  const program = buildProgram({ io, finish: value => (code = value), examples: new Map() });
  try {
    await program.parseAsync(args, { from: 'user' });
    return code;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    printError(io, error);
    return exitCodeOf(error);
  }
}
