import { Argument, type Command, Option, type OptionValues } from 'commander';
import { type Connection, connect, type ControllerClient, resolveConnection } from './connection.ts';
import type { Io } from './io.ts';
import { createOutput, type Output } from './output.ts';

const CONNECTION_GROUP = 'Connection and output:';

/** One call of one command: what was typed, the way to the controller and the way out. */
export interface Call {
  io: Io;
  out: Output;
  /** Made at the first use, so that a command that fails before it asks nothing of the configuration. */
  readonly client: ControllerClient;
  readonly connection: Connection;
  /** Options of the command itself. */
  options: OptionValues;
  args: string[];
  /** Prints wrong usage and ends with exit code 2. */
  usage(message: string): never;
}

/** The exit code of a command; nothing is 0. */
export type Action = (call: Call) => Promise<number | void>;

/** Commands get at the streams through this; `finish` takes the exit code. */
export interface Runtime {
  io: Io;
  finish: (code: number) => void;
  /** Of each command; nouns show those of their verbs. */
  examples: Map<Command, string[]>;
}

interface Leaf {
  /** `show <host>`: the placeholder says what is completed there: a noun of the API, or `path` for files; others nothing. */
  usage: string;
  summary: string;
  /** Command lines without the leading `cistern`. At least one. */
  examples: [string, ...string[]];
  action: Action;
}

/** Adds a command to `parent` with the options that all have in common. More options are chained on what is returned. */
export function leaf(runtime: Runtime, parent: Command, { usage, summary, examples, action }: Leaf): Command {
  const command = parent.command(usage.split(' ')[0]!).description(summary);
  for (const argument of usage.split(' ').slice(1)) command.addArgument(new Argument(argument));
  addExamples(command, examples);
  runtime.examples.set(command, examples);
  command.action(async () => {
    using call = openCall(runtime, command);
    const code = await action(call);
    runtime.finish(code ?? 0);
  });
  return command;
}

/** Options that every command has. Where a command has a `--url` of its own, the controller's goes before the noun. */
export const commonOptions = (): Option[] => [
  new Option('--url <url>', 'address of the controller [CISTERN_URL]').helpGroup(CONNECTION_GROUP),
  new Option('--token-file <path>', "file with the controller's token [CISTERN_TOKEN_FILE]").helpGroup(CONNECTION_GROUP),
  new Option('--ca <path>', "certificate of the controller's authority, for https [CISTERN_CA]").helpGroup(CONNECTION_GROUP),
  new Option('-o, --output <form>', 'form of the result').choices(['table', 'json']).helpGroup(CONNECTION_GROUP),
];

const addExamples = (command: Command, lines: string[]): void =>
  void command.addHelpText(
    'after',
    `\nExamples:\n${lines.map(line => (line.includes('| cistern ') ? `  ${line}` : `  cistern ${line}`)).join('\n')}`,
  );

/** Completes `command` and all below it: common options for verbs, examples for nouns. Done last: options of their own come first. */
export function finishCommands(runtime: Runtime, command: Command): void {
  for (const child of command.commands) finishCommands(runtime, child);
  if (command.commands.length > 0) {
    command.helpCommand(false);
    addExamples(
      command,
      command.commands.flatMap(child => runtime.examples.get(child)?.slice(0, 1) ?? []),
    );
    return;
  }
  for (const option of commonOptions()) {
    if (!command.options.some(own => own.long === option.long)) command.addOption(option);
  }
}

function openCall(runtime: Runtime, command: Command): Call & Disposable {
  const common = commonValues(command);
  let connection: Connection | undefined;
  let client: ControllerClient | undefined;
  return {
    io: runtime.io,
    out: createOutput(runtime.io, common.output === 'json'),
    get connection() {
      return (connection ??= resolveConnection(common, runtime.io.env));
    },
    get client() {
      return (client ??= connect(this.connection));
    },
    options: command.opts(),
    args: command.args,
    usage: message => command.error(`error: ${message}`, { exitCode: 2 }),
    [Symbol.dispose]: () => client?.close(),
  };
}

/** Values of the common options: those of the command over those before the noun. */
function commonValues(command: Command): { url?: string; tokenFile?: string; ca?: string; output?: string } {
  const values: OptionValues = {};
  for (const level of [root(command), command]) {
    for (const option of level.options.filter(o => o.helpGroupHeading === CONNECTION_GROUP)) {
      const key = option.attributeName();
      const value: unknown = level.getOptionValue(key);
      if (value !== undefined) values[key] = value;
    }
  }
  return values;
}

const root = (command: Command): Command => (command.parent ? root(command.parent) : command);
