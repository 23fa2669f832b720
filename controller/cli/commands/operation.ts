import type { Command } from 'commander';
import { Option } from 'commander';
import { type Operation, OperationState } from '../../../shared/model.ts';
import { leaf, type Runtime } from '../command.ts';
import { followOperation } from '../follow.ts';
import { listFor, withLimit } from '../lists.ts';
import { runOperation, withWait } from '../operation.ts';
import { formatProblem } from '../output.ts';
import { describeTransfer, reportOutcome, scalars, transfersOf } from '../outcome.ts';
import { progressLine, progressOf } from '../progress.ts';
import type { Column } from '../table.ts';
import { formatAge, formatDuration } from '../units.ts';
import { isFinal } from '../watch.ts';

const seconds = (from: string, to: string | null): number => ((to ? Date.parse(to) : Date.now()) - Date.parse(from)) / 1000;

export const operationColumns: Column<Operation>[] = [
  { title: 'ID', value: o => o.id },
  { title: 'KIND', value: o => o.kind },
  { title: 'STATE', value: o => o.state },
  { title: 'NAME', value: o => (typeof o.input.name === 'string' ? o.input.name : ''), yields: 2 },
  { title: 'BY', value: o => o.by ?? '', yields: 5 },
  { title: 'AGE', value: o => formatAge(o.createdAt), align: 'right', yields: 3 },
  { title: 'TOOK', value: o => formatDuration(seconds(o.createdAt, o.finishedAt)), align: 'right', yields: 4 },
  { title: 'ERROR', value: o => (o.error ? `${o.error.code}: ${o.error.detail}` : ''), yields: 1 },
];

/** `cistern operation`: the jobs of the controller. */
export function addOperationCommands(runtime: Runtime, program: Command): void {
  const operation = program.command('operation').description('jobs of the controller: look, wait, cancel, retry');
  withLimit(
    leaf(runtime, operation, {
      usage: 'list',
      summary: 'List operations, newest first',
      examples: ['operation list', 'operation list --state failed', 'operation list --kind image.import --limit 5'],
      action: async call => {
        const { state, kind, resource } = call.options as { state?: OperationState; kind?: string; resource?: string };
        call.out.list(
          operationColumns,
          await listFor(call, page => call.client.listOperations({ query: { ...page, state, kind, resource } })),
        );
      },
    })
      .addOption(new Option('--state <state>', 'only in this state').choices(OperationState.options))
      .option('--kind <kind>', 'only of this kind, such as image.import')
      .option('--resource <id>', 'only those that work on the thing with this id'),
    100,
  );
  leaf(runtime, operation, {
    usage: 'show <operation>',
    summary: 'Show an operation: its steps, progress, transfers and error',
    examples: ['operation show 0197a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b'],
    action: async call => {
      const found = await call.client.getOperation({ params: { ref: call.args[0]! } });
      const steps = call.out.table(stepColumns, found.steps);
      const output =
        found.output && Object.keys(found.output).length > 0 ? `output:\n${JSON.stringify(found.output, null, 2)}` : '';
      call.out.show(found, describe(found), [
        found.steps.length > 0 ? steps : '',
        output,
        found.error ? formatProblem(found.error).replace(/^cistern: /, 'error: ') : '',
      ]);
    },
  });
  leaf(runtime, operation, {
    usage: 'wait <operation>',
    summary: 'Follow an operation until it has ended; the exit code is 0 when it succeeded',
    examples: [
      'operation wait 0197a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b',
      'operation wait $(cistern image import a --url https://example.org/a.qcow2 --no-wait)',
    ],
    action: async call =>
      reportOutcome(call, await followOperation(call, await call.client.getOperation({ params: { ref: call.args[0]! } }))),
  });
  withWait(
    leaf(runtime, operation, {
      usage: 'cancel <operation>',
      summary: 'Cancel an operation and wait until what it has begun is undone',
      examples: ['operation cancel 0197a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b'],
      action: async call => {
        const asked = await call.client.cancelOperation({ params: { ref: call.args[0]! } });
        const ended = call.options.wait === false || isFinal(asked) ? asked : await followOperation(call, asked);
        if (ended.state === 'succeeded' || ended.state === 'failed') return reportOutcome(call, ended);
        call.out.say(`${ended.kind} ${ended.id}: ${ended.state}`, ended);
        return 0;
      },
    }),
  );
  withWait(
    leaf(runtime, operation, {
      usage: 'retry <operation>',
      summary: 'Start a failed or cancelled operation again with the same input',
      examples: ['operation retry 0197a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b'],
      action: call => runOperation(call, options => call.client.retryOperation({ params: { ref: call.args[0]! } }, options)),
    }),
  );
}

const stepColumns: Column<Operation['steps'][number]>[] = [
  { title: 'STEP', value: s => s.name },
  { title: 'STATE', value: s => s.state },
  { title: 'TOOK', value: s => formatDuration(seconds(s.startedAt, s.finishedAt)), align: 'right' },
];

const describe = (operation: Operation): [string, string | undefined][] => [
  ['id', operation.id],
  ['kind', operation.kind],
  ['state', operation.state],
  [
    'progress',
    isFinal(operation)
      ? undefined
      : progressLine(operation.kind, progressOf(operation), seconds(operation.createdAt, null), Infinity),
  ],
  ['created', `${operation.createdAt} (${formatAge(operation.createdAt)} ago)`],
  ['took', operation.finishedAt ? formatDuration(seconds(operation.createdAt, operation.finishedAt)) : undefined],
  ['retry of', operation.retryOf ?? undefined],
  ['by', operation.by ?? undefined],
  ...scalars(operation.input).map(([key, value]): [string, string] => [`  ${key}`, value]),
  ...operation.resources.slice(0, 20).map((resource): [string, string] => [resource.kind, resource.id]),
  ...transfersOf(operation).map((transfer): [string, string] => ['transfer', describeTransfer(transfer)]),
];
