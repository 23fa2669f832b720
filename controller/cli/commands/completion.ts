import { Argument, type Command } from 'commander';
import { leaf, type Runtime } from '../command.ts';
import { bashScript, describeCommands, fishScript, zshScript } from '../completion.ts';
import { connect, resolveConnection } from '../connection.ts';
import { NAMED, type NamedKind, readAll } from '../lists.ts';

const SCRIPTS = { bash: bashScript, zsh: zshScript, fish: fishScript };
/** A shell that waits for names is a shell that hangs. */
const PATIENCE_SECONDS = 2;
const MOST = 2000;

/** `cistern completion SHELL`, and the hidden command that its scripts ask for names. */
export function addCompletionCommands(runtime: Runtime, program: Command): void {
  const command = leaf(runtime, program, {
    usage: 'completion',
    summary: 'Print the completion script for a shell',
    examples: [
      'completion bash > /etc/bash_completion.d/cistern',
      'completion zsh > "${fpath[1]}/_cistern"',
      'completion fish > ~/.config/fish/completions/cistern.fish',
    ],
    action: call => {
      call.io.stdout.write(SCRIPTS[call.args[0] as keyof typeof SCRIPTS](describeCommands(program)));
      return Promise.resolve();
    },
  });
  command.addArgument(new Argument('<shell>', 'bash, zsh or fish').choices(Object.keys(SCRIPTS)));
  program
    .command('__complete <kind>', { hidden: true })
    .description('print the names of one kind of thing')
    .action(async (kind: string) => {
      for (const name of await namesFor(kind, runtime.io.env)) runtime.io.stdout.write(`${name}\n`);
      runtime.finish(0);
    });
}

/** Names to complete; none at all where anything goes wrong, because a completion has nobody to tell it to. */
async function namesFor(kind: string, env: NodeJS.ProcessEnv): Promise<string[]> {
  let client;
  try {
    client = connect(resolveConnection({}, env), PATIENCE_SECONDS);
    if (kind === 'operation') return (await client.listOperations({ query: { limit: 50 } })).items.map(operation => operation.id);
    if (!Object.hasOwn(NAMED, kind)) return [];
    const fetch = NAMED[kind as NamedKind];
    const { items } = await readAll<{ name: string }>(page => fetch(client!, page), MOST);
    return items.map(item => item.name);
  } catch {
    return [];
  } finally {
    client?.close();
  }
}
