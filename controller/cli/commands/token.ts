import type { Command } from 'commander';
import { Option } from 'commander';
import { Role, type Token } from '../../../shared/model.ts';
import { leaf, type Runtime } from '../command.ts';
import { listFor, withLimit } from '../lists.ts';
import type { Column } from '../table.ts';
import { formatAge, parseEnd } from '../units.ts';

const columns: Column<Token>[] = [
  { title: 'NAME', value: t => t.name },
  { title: 'ROLE', value: t => t.role },
  { title: 'EXPIRES', value: t => t.expiresAt ?? 'never' },
  { title: 'MADE BY', value: t => t.by ?? '', yields: 2 },
  { title: 'AGE', value: t => formatAge(t.createdAt), align: 'right', yields: 1 },
  { title: 'ID', value: t => t.id, yields: 3, whole: true },
];

/** `cistern token`: who may use the API, and for what. */
export function addTokenCommands(runtime: Runtime, program: Command): void {
  const token = program.command('token').description('tokens of the API: who may do what');
  withLimit(
    leaf(runtime, token, {
      usage: 'list',
      summary: 'List the tokens that were made, without what they open with',
      examples: ['token list'],
      action: async call => call.out.list(columns, await listFor(call, page => call.client.listTokens({ query: page }))),
    }),
  );
  leaf(runtime, token, {
    usage: 'create <name>',
    summary: 'Make a token and print it: it is never shown again',
    examples: [
      'token create grafana --role reader > grafana.token',
      'token create ci --role operator --expires 90d > ci.token',
      'token create alice --role admin > alice.token',
    ],
    action: async call => {
      const { role, expires } = call.options as { role: Role; expires?: string };
      const made = await call.client.createToken({ body: { name: call.args[0]!, role, expiresAt: expires } });
      call.out.say(made.token, made);
      const ends = made.expiresAt ? `expires at ${made.expiresAt}` : 'does not expire';
      call.out.note(`token ${made.name} has the role ${made.role} and ${ends}; it is shown only this once`);
    },
  })
    .addOption(
      new Option('--role <role>', 'reader: sees everything; operator: also daily work; admin: everything')
        .choices(Role.options)
        .makeOptionMandatory(),
    )
    .option(
      '--expires <time>',
      'a time span from now, such as 12h or 90d, or a time; else it lasts until it is deleted',
      parseEnd,
    );
  leaf(runtime, token, {
    usage: 'delete <token>',
    summary: 'Delete a token: it opens nothing any more',
    examples: ['token delete ci'],
    action: async call => {
      const ref = call.args[0]!;
      await call.client.deleteToken({ params: { ref } });
      call.out.say(`token ${ref} deleted`, { deleted: ref });
    },
  });
}
