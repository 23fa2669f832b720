import type { Command } from 'commander';
import { Option } from 'commander';
import { type PrimaryStorage, State, Status } from '../../../shared/model.ts';
import { type Call, leaf, type Runtime } from '../command.ts';
import { listFor, type NameOf, namesOf, withLimit } from '../lists.ts';
import { runOperation, withWait } from '../operation.ts';
import type { Settings } from '../settings.ts';
import type { Column } from '../table.ts';
import { formatBytes, parseCount, parseRatio } from '../units.ts';
import { capacityPairs, collect, configPairs, describeCapacity, settingsOf, usedShare, withSettings } from './storage-options.ts';
import { runScan } from './scan.ts';

export const primaryStorageColumns = (nameOf: NameOf): Column<PrimaryStorage>[] => [
  { title: 'NAME', value: s => s.name },
  { title: 'TYPE', value: s => s.type },
  { title: 'STATUS', value: s => s.status },
  { title: 'STATE', value: s => s.state, yields: 3 },
  { title: 'FREE', value: s => formatBytes(s.capacity?.available), align: 'right' },
  { title: 'TOTAL', value: s => formatBytes(s.capacity?.total), align: 'right', yields: 2 },
  { title: 'USED', value: s => usedShare(s.capacity), align: 'right', yields: 4 },
  { title: 'PROVISIONED', value: s => formatBytes(s.capacity?.provisioned), align: 'right', yields: 5 },
  { title: 'CLUSTERS', value: s => s.clusterIds.map(nameOf).join(','), yields: 6 },
  { title: 'REASON', value: s => s.reason ?? '', yields: 1 },
  { title: 'ID', value: s => s.id, yields: 7, whole: true },
];

/** `cistern primary-storage`: the pools that volumes lie on. */
export function addPrimaryStorageCommands(runtime: Runtime, program: Command): void {
  const storage = program.command('primary-storage').description('pools of volumes');
  addReading(runtime, storage);
  withWait(
    withSettings(
      leaf(runtime, storage, {
        usage: 'add <name>',
        summary: 'Add a primary storage and connect the hosts of its clusters to it',
        examples: [
          'primary-storage add fast --type local --set path=/var/lib/cistern/pool',
          'primary-storage add shared --type nfs --set server=nas1 --set export=/vol/cistern --cluster east --overcommit 3',
        ],
        action: call => {
          const { id, type, cluster, overcommit } = call.options as {
            id?: string;
            type: string;
            cluster?: string[];
            overcommit?: number;
          };
          const body = {
            name: call.args[0]!,
            id,
            type,
            config: settingsOf(call.options as { set?: Settings }),
            clusters: cluster,
            overcommit,
          };
          return runOperation(call, options => call.client.addPrimaryStorage({ body }, options));
        },
      }),
      'local, nfs, shared-dir or rbd',
    )
      .option('--cluster <cluster>', 'a cluster whose hosts use it; may be repeated (default: "default")', collect)
      .option('--overcommit <ratio>', 'how many times the physical size may be provisioned (default: 2)', parseRatio)
      .option('--id <id>', 'of a pool that exists already, as its pool.json tells; it is taken as it is'),
  );
  leaf(runtime, storage, {
    usage: 'update <primary-storage>',
    summary: 'Rename a primary storage, enable or disable it, or change its over-commit ratio',
    examples: ['primary-storage update fast --state enabled', 'primary-storage update fast --overcommit 1.5'],
    action: async call => {
      const { name, state, overcommit } = call.options as {
        name?: string;
        state?: 'enabled' | 'disabled';
        overcommit?: number;
      };
      if (name === undefined && state === undefined && overcommit === undefined)
        call.usage('nothing to change: give --name, --state or --overcommit');
      await show(
        call,
        await call.client.updatePrimaryStorage({ params: { ref: call.args[0]! }, body: { name, state, overcommit } }),
      );
    },
  })
    .option('--name <name>', 'the new name')
    .addOption(
      new Option('--state <state>', 'enabled (which also ends a maintenance) or disabled').choices(['enabled', 'disabled']),
    )
    .option('--overcommit <ratio>', 'how many times the physical size may be provisioned', parseRatio);
  addStarting(runtime, storage);
}

function addReading(runtime: Runtime, storage: Command): void {
  withLimit(
    leaf(runtime, storage, {
      usage: 'list',
      summary: 'List primary storages',
      examples: ['primary-storage list', 'primary-storage list --cluster east --type nfs'],
      action: async call => {
        const { type, status, state, cluster } = call.options as {
          type?: string;
          status?: Status;
          state?: State;
          cluster?: string;
        };
        const storages = await listFor(call, page =>
          call.client.listPrimaryStorages({ query: { ...page, type, status, state, cluster } }),
        );
        call.out.list(primaryStorageColumns(await namesOf(call, 'cluster')), storages);
      },
    })
      .option('--type <type>', 'only of this type')
      .addOption(new Option('--status <status>', 'only with this status').choices(Status.options))
      .addOption(new Option('--state <state>', 'only in this state').choices(State.options))
      .option('--cluster <cluster>', 'only those attached to this cluster'),
  );
  leaf(runtime, storage, {
    usage: 'show <primary-storage>',
    summary: 'Show a primary storage, its book-keeping and how each host sees it',
    examples: ['primary-storage show fast'],
    action: async call => show(call, await call.client.getPrimaryStorage({ params: { ref: call.args[0]! } })),
  });
}

function addStarting(runtime: Runtime, storage: Command): void {
  const byCluster = (verb: 'attach' | 'detach', summary: string, example: string): void => {
    withWait(
      leaf(runtime, storage, {
        usage: `${verb} <primary-storage> <cluster>`,
        summary,
        examples: [example],
        action: call => {
          const input = { params: { ref: call.args[0]! }, body: { cluster: call.args[1]! } };
          return runOperation(call, options =>
            verb === 'attach'
              ? call.client.attachPrimaryStorage(input, options)
              : call.client.detachPrimaryStorage(input, options),
          );
        },
      }),
    );
  };
  byCluster('attach', 'Attach a primary storage to a cluster', 'primary-storage attach shared east');
  byCluster('detach', 'Detach a primary storage from a cluster', 'primary-storage detach shared east');
  withWait(
    leaf(runtime, storage, {
      usage: 'refresh <primary-storage>',
      summary: 'Connect again and measure capacity, cache, volumes and trash',
      examples: ['primary-storage refresh fast'],
      action: call =>
        runOperation(call, options => call.client.refreshPrimaryStorage({ params: { ref: call.args[0]! } }, options)),
    }),
  );
  withWait(
    leaf(runtime, storage, {
      usage: 'maintain <primary-storage>',
      summary: 'Put it into maintenance: no new work, what runs ends or is cancelled, and the hosts unmount it',
      examples: ['primary-storage maintain shared', 'primary-storage maintain shared --cancel'],
      action: call => {
        const { cancel, deadline } = call.options as { cancel?: boolean; deadline?: number };
        const input = { params: { ref: call.args[0]! }, body: { cancel, deadlineSeconds: deadline } };
        return runOperation(call, options => call.client.maintainPrimaryStorage(input, options));
      },
    })
      .option('--cancel', 'cancel what runs instead of waiting for it')
      .option('--deadline <seconds>', 'past this it stays as it was (default: 3600)', parseCount(1, 86_400)),
  );
  leaf(runtime, storage, {
    usage: 'scan <primary-storage>',
    summary: 'List what lies there without being known, what is known and does not lie there, and what is wrong',
    examples: ['primary-storage scan fast', 'primary-storage scan fast --check', 'primary-storage scan fast --adopt --repair'],
    action: call => {
      const { check, adopt, repair } = call.options as { check?: boolean; adopt?: boolean; repair?: boolean };
      const input = { params: { ref: call.args[0]! }, body: { check, adopt, repair } };
      return runScan(call, options => call.client.scanPrimaryStorage(input, options));
    },
  })
    .option('--check', 'have qemu-img check every volume that no program has open')
    .option('--adopt', 'take volumes in that are not known, as the notes beside them describe them')
    .option('--repair', 'bring what is known in line with what lies there; nothing there is changed');
  withWait(
    leaf(runtime, storage, {
      usage: 'delete <primary-storage>',
      summary: 'Remove a primary storage that holds no volumes',
      examples: ['primary-storage delete fast'],
      action: call =>
        runOperation(call, options => call.client.deletePrimaryStorage({ params: { ref: call.args[0]! } }, options)),
    }),
  );
}

async function show(call: Call, storage: PrimaryStorage): Promise<void> {
  const nameOf = await namesOf(call, 'cluster', 'host');
  const hosts = call.out.table(
    [
      { title: 'HOST', value: h => nameOf(h.hostId) },
      { title: 'STATUS', value: h => h.status },
      { title: 'CAPACITY', value: h => describeCapacity(h.capacity), yields: 2 },
      { title: 'REASON', value: h => h.reason ?? '', yields: 1 },
    ],
    storage.hosts,
  );
  call.out.show(
    storage,
    [
      ['name', storage.name],
      ['id', storage.id],
      ['type', `${storage.type} (${storage.shared ? 'one pool for all hosts' : 'one pool on each host'})`],
      ...configPairs(storage.config),
      ['status', storage.status],
      ['reason', storage.reason ?? undefined],
      ['state', storage.state],
      ['clusters', storage.clusterIds.map(nameOf).join(', ')],
      ...capacityPairs(storage.capacity),
    ],
    storage.hosts.length > 0 ? [hosts] : [],
  );
}
