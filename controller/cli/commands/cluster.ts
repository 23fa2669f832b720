import type { Command } from 'commander';
import type { Cluster } from '../../../shared/model.ts';
import { type Call, leaf, type Runtime } from '../command.ts';
import { listFor, withLimit } from '../lists.ts';
import { formatAge } from '../units.ts';

const show = (call: Call, cluster: Cluster): void =>
  call.out.show(cluster, [
    ['name', cluster.name],
    ['id', cluster.id],
    ['created', `${cluster.createdAt} (${formatAge(cluster.createdAt)} ago)`],
  ]);

/** `cistern cluster`: groups of hosts that share storages. */
export function addClusterCommands(runtime: Runtime, program: Command): void {
  const cluster = program.command('cluster').description('groups of hosts that share storages');
  withLimit(
    leaf(runtime, cluster, {
      usage: 'list',
      summary: 'List clusters',
      examples: ['cluster list'],
      action: async call => {
        const clusters = await listFor(call, page => call.client.listClusters({ query: page }));
        call.out.list<Cluster>(
          [
            { title: 'NAME', value: c => c.name },
            { title: 'AGE', value: c => formatAge(c.createdAt), align: 'right' },
            { title: 'ID', value: c => c.id, yields: 1, whole: true },
          ],
          clusters,
        );
      },
    }),
  );
  leaf(runtime, cluster, {
    usage: 'show <cluster>',
    summary: 'Show a cluster',
    examples: ['cluster show default'],
    action: async call => show(call, await call.client.getCluster({ params: { ref: call.args[0]! } })),
  });
  leaf(runtime, cluster, {
    usage: 'create <name>',
    summary: 'Create a cluster',
    examples: ['cluster create east'],
    action: async call => show(call, await call.client.createCluster({ body: { name: call.args[0]! } })),
  });
  leaf(runtime, cluster, {
    usage: 'delete <cluster>',
    summary: 'Delete a cluster that has no host and no storage',
    examples: ['cluster delete east'],
    action: async call => {
      const ref = call.args[0]!;
      await call.client.deleteCluster({ params: { ref } });
      call.out.say(`cluster ${ref} deleted`, { deleted: ref });
    },
  });
}
