import type { Command } from 'commander';
import { leaf, type Runtime } from '../command.ts';
import { runOperation, withWait } from '../operation.ts';

/** `cistern controller`: the controller itself. */
export function addControllerCommands(runtime: Runtime, program: Command): void {
  const controller = program.command('controller').description('the controller itself');
  leaf(runtime, controller, {
    usage: 'show',
    summary: 'Show whether the controller works, or its database must be recovered',
    examples: ['controller show'],
    action: async call => {
      const state = await call.client.getController();
      call.out.show(state, [
        ['url', call.connection.url],
        ['version', state.version],
        ['recovery', state.recovery ? `since ${state.recovery.since}: ${state.recovery.reason}` : 'not needed'],
      ]);
    },
  });
  withWait(
    leaf(runtime, controller, {
      usage: 'resume',
      summary: 'Recover a database that was put back to an old copy, and work again; removes nothing on the storages',
      examples: ['controller resume'],
      action: call => runOperation(call, options => call.client.resumeController({}, options)),
    }),
  );
}
