import type { Command } from 'commander';
import { leaf, type Runtime } from '../command.ts';
import { runOperation, withWait } from '../operation.ts';
import { collect } from './storage-options.ts';

/** `cistern image replicate` and `cistern image replica`: the copies of an image on its backup storages. */
export function addImageReplicaCommands(runtime: Runtime, image: Command): void {
  withWait(
    leaf(runtime, image, {
      usage: 'replicate <image>',
      summary: 'Copy an image to more backup storages, or over a replica that is damaged',
      examples: ['image replicate debian12 --to vault', 'image replicate debian12 --to vault --to shelf --host kvm1'],
      action: call => {
        const { to, host } = call.options as { to: string[]; host?: string };
        const request = { params: { ref: call.args[0]! }, body: { backupStorages: to, host } };
        return runOperation(call, options => call.client.replicateImage(request, options));
      },
    })
      .requiredOption('--to <backup-storage>', 'where a replica goes; may be repeated', collect)
      .option('--host <host>', 'the host that does the work; else the least busy one'),
  );
  const replica = image.command('replica').description('copies of images on backup storages');
  withWait(
    leaf(runtime, replica, {
      usage: 'delete <image> <backup-storage>',
      summary: 'Delete the replica of an image on one backup storage; refused where no other one is good',
      examples: ['image replica delete debian12 shelf'],
      action: call => {
        const params = { ref: call.args[0]!, store: call.args[1]! };
        return runOperation(call, options => call.client.deleteReplica({ params }, options));
      },
    }),
  );
}
