import { z } from 'zod';
import type { Command } from './command.ts';
import { imageCommands } from './image.ts';
import { poolCommands } from './pool.ts';
import { replicaCommands, storeCommands } from './store.ts';
import { volumeCommands } from './volume.ts';

/** Every command that the controller may send to an agent. */
export const COMMANDS = [...poolCommands, ...storeCommands, ...replicaCommands, ...imageCommands, ...volumeCommands] as const;

type AnyCommand = (typeof COMMANDS)[number];
export type CommandKind = AnyCommand['kind'];
type Of<K extends CommandKind> = Extract<AnyCommand, { kind: K }>;
export type CommandInput<K extends CommandKind> = z.infer<Of<K>['input']>;
export type CommandOutput<K extends CommandKind> = z.infer<Of<K>['output']>;
/** A command as it travels: its kind beside the fields of its input. */
export type CommandMessage<K extends CommandKind = CommandKind> = { [P in K]: { kind: P; input: CommandInput<P> } }[K];

const byKind = new Map<string, AnyCommand>(COMMANDS.map(c => [c.kind, c]));

/** The definition of a command, or undefined for a kind that this version does not know. */
export const findCommand = (kind: string): AnyCommand | undefined => byKind.get(kind);

/** Whether a command changes nothing. */
export const isReading = (kind: string): boolean => (findCommand(kind) as Command | undefined)?.reads === true;

/** `{kind, input}` of any known command: the body of `POST /v1/tasks`. */
export const AnyCommandMessage = z.discriminatedUnion(
  'kind',
  COMMANDS.map(c => z.strictObject({ kind: z.literal(c.kind), input: c.input })) as unknown as [
    z.ZodObject<{ kind: z.ZodLiteral<CommandKind>; input: z.ZodType }>,
  ],
);
