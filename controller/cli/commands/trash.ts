import type { Command } from 'commander';
import { leaf, type Runtime } from '../command.ts';
import { listFor, namesOf, withLimit } from '../lists.ts';
import { runOperation, withWait } from '../operation.ts';
import { formatAge, formatBytes } from '../units.ts';

/** `cistern trash`: deleted volumes that can still be seen. */
export function addTrashCommands(runtime: Runtime, program: Command): void {
  const trash = program.command('trash').description('deleted volumes that are not yet purged');
  withLimit(
    leaf(runtime, trash, {
      usage: 'list',
      summary: 'List deleted volumes that are not yet purged',
      examples: ['trash list', 'trash list --primary-storage fast'],
      action: async call => {
        const { primaryStorage } = call.options as { primaryStorage?: string };
        const entries = await listFor(call, page => call.client.listTrash({ query: { ...page, primaryStorage } }));
        const nameOf = await namesOf(call, 'primary-storage', 'host');
        call.out.list<(typeof entries)[number]>(
          [
            { title: 'NAME', value: e => e.name },
            { title: 'PRIMARY STORAGE', value: e => nameOf(e.primaryStorageId) },
            { title: 'HOST', value: e => nameOf(e.hostId), yields: 1 },
            { title: 'ALLOCATED', value: e => formatBytes(e.allocated), align: 'right' },
            { title: 'DELETED', value: e => formatAge(e.deletedAt), align: 'right' },
            { title: 'ID', value: e => e.volumeId, yields: 2, whole: true },
          ],
          entries,
        );
      },
    }).option('--primary-storage <primary-storage>', 'only on this primary storage'),
  );
  withWait(
    leaf(runtime, trash, {
      usage: 'empty',
      summary: 'Purge deleted volumes now',
      examples: ['trash empty', 'trash empty --primary-storage fast'],
      action: call => {
        const { primaryStorage } = call.options as { primaryStorage?: string };
        return runOperation(call, options => call.client.emptyTrash({ body: { primaryStorage } }, options));
      },
    }).option('--primary-storage <primary-storage>', 'only on this primary storage'),
  );
}
