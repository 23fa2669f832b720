import type { Command } from 'commander';
import { Option } from 'commander';
import { type BackupStorage, State, Status } from '../../../shared/model.ts';
import { type Call, leaf, type Runtime } from '../command.ts';
import { listFor, withLimit } from '../lists.ts';
import { runOperation, withWait } from '../operation.ts';
import type { Settings } from '../settings.ts';
import type { Column } from '../table.ts';
import { formatBytes, parseCount, parseSize } from '../units.ts';
import { configPairs, describeCapacity, settingsOf, usedShare, withSettings } from './storage-options.ts';
import { runScan } from './scan.ts';
import { runValidate } from './validate.ts';

export const backupStorageColumns: Column<BackupStorage>[] = [
  { title: 'NAME', value: s => s.name },
  { title: 'TYPE', value: s => s.type },
  { title: 'STATUS', value: s => s.status },
  { title: 'STATE', value: s => s.state, yields: 3 },
  { title: 'FREE', value: s => formatBytes(s.capacity?.available), align: 'right' },
  { title: 'TOTAL', value: s => formatBytes(s.capacity?.total), align: 'right', yields: 2 },
  { title: 'USED', value: s => usedShare(s.capacity), align: 'right', yields: 4 },
  { title: 'REASON', value: s => s.reason ?? '', yields: 1 },
  { title: 'ID', value: s => s.id, yields: 5, whole: true },
];

/** `cistern backup-storage`: the warehouses of images. */
export function addBackupStorageCommands(runtime: Runtime, program: Command): void {
  const storage = program.command('backup-storage').description('warehouses of images');
  withLimit(
    leaf(runtime, storage, {
      usage: 'list',
      summary: 'List backup storages',
      examples: ['backup-storage list', 'backup-storage list --status disconnected'],
      action: async call => {
        const { type, status, state } = call.options as { type?: string; status?: Status; state?: State };
        call.out.list(
          backupStorageColumns,
          await listFor(call, page => call.client.listBackupStorages({ query: { ...page, type, status, state } })),
        );
      },
    })
      .option('--type <type>', 'only of this type')
      .addOption(new Option('--status <status>', 'only with this status').choices(Status.options))
      .addOption(new Option('--state <state>', 'only in this state').choices(State.options)),
  );
  leaf(runtime, storage, {
    usage: 'show <backup-storage>',
    summary: 'Show a backup storage',
    examples: ['backup-storage show vault'],
    action: async call => show(call, await call.client.getBackupStorage({ params: { ref: call.args[0]! } })),
  });
  withWait(
    withSettings(
      leaf(runtime, storage, {
        usage: 'add <name>',
        summary: 'Add a backup storage; a host checks that it can be read and written',
        examples: [
          'backup-storage add shelf --type dir --set path=/srv/images',
          'backup-storage add vault --type sftp --set host=vault1 --set user=cistern --set path=/srv/images --set-file privateKey=~/.ssh/id_ed25519 --set-file hostKey=vault1.hostkey',
        ],
        action: call => {
          const body = {
            name: call.args[0]!,
            type: call.options.type as string,
            config: settingsOf(call.options as { set?: Settings }),
          };
          return runOperation(call, options => call.client.addBackupStorage({ body }, options));
        },
      }),
      'dir, rbd, sftp or swift',
    ),
  );
  leaf(runtime, storage, {
    usage: 'update <backup-storage>',
    summary: 'Rename a backup storage, change its state or its limits',
    examples: [
      'backup-storage update vault --state disabled',
      'backup-storage update vault --bandwidth 200M --transfers 4',
      'backup-storage update vault --bandwidth none',
    ],
    action: async call => {
      const { name, state, bandwidth, transfers } = call.options as UpdateOptions;
      if ([name, state, bandwidth, transfers].every(value => value === undefined))
        call.usage('nothing to change: give --name, --state, --bandwidth or --transfers');
      const limited = bandwidth !== undefined || transfers !== undefined;
      const body = {
        name,
        state,
        ...(limited && { limits: { bytesPerSecond: limitOf(bandwidth), transfers: limitOf(transfers) } }),
      };
      show(call, await call.client.updateBackupStorage({ params: { ref: call.args[0]! }, body }));
    },
  })
    .option('--name <name>', 'the new name')
    .addOption(new Option('--state <state>', 'enabled, maintenance or disabled').choices(State.options))
    .option('--bandwidth <size>', 'bytes a second over all hosts, such as 200M; none: no limit', orNone(parseSize))
    .option('--transfers <count>', 'transfers at once over all hosts; none: no limit', orNone(parseCount(1, 1000)));
  withWait(
    leaf(runtime, storage, {
      usage: 'refresh <backup-storage>',
      summary: 'Check a backup storage again and measure its capacity',
      examples: ['backup-storage refresh vault'],
      action: call =>
        runOperation(call, options => call.client.refreshBackupStorage({ params: { ref: call.args[0]! } }, options)),
    }),
  );
  leaf(runtime, storage, {
    usage: 'scan <backup-storage>',
    summary: 'List what lies there without being known, and what is known and does not lie there',
    examples: ['backup-storage scan vault', 'backup-storage scan vault --adopt'],
    action: call => {
      const request = { params: { ref: call.args[0]! }, body: { adopt: call.options.adopt === true } };
      return runScan(call, options => call.client.scanBackupStorage(request, options));
    },
  }).option('--adopt', 'take images in that are not known, as their manifests describe them');
  leaf(runtime, storage, {
    usage: 'validate <backup-storage>',
    summary: 'Run the conformance suite against a backup storage, and leave nothing there',
    examples: ['backup-storage validate vault'],
    action: call => runValidate(call, options => call.client.validateBackupStorage({ params: { ref: call.args[0]! } }, options)),
  });
  withWait(
    leaf(runtime, storage, {
      usage: 'delete <backup-storage>',
      summary: 'Remove a backup storage that holds no images',
      examples: ['backup-storage delete vault'],
      action: call => runOperation(call, options => call.client.deleteBackupStorage({ params: { ref: call.args[0]! } }, options)),
    }),
  );
}

/** commander takes no null. */
type Limit = number | 'none';

interface UpdateOptions {
  name?: string;
  state?: State;
  bandwidth?: Limit;
  transfers?: Limit;
}

const orNone =
  (parse: (text: string) => number) =>
  (text: string): Limit =>
    text === 'none' ? text : parse(text);

const limitOf = (limit: Limit | undefined): number | null | undefined => (limit === 'none' ? null : limit);

function show(call: Call, storage: BackupStorage): void {
  const { bytesPerSecond, transfers } = storage.limits;
  call.out.show(storage, [
    ['name', storage.name],
    ['id', storage.id],
    ['type', storage.type],
    ...configPairs(storage.config),
    ['status', storage.status],
    ['reason', storage.reason ?? undefined],
    ['state', storage.state],
    ['capacity', describeCapacity(storage.capacity)],
    ['bandwidth', bytesPerSecond === null ? undefined : `${formatBytes(bytesPerSecond)}/s at most`],
    ['transfers', transfers === null ? undefined : `${transfers} at most`],
  ]);
}
