import type { Command } from 'commander';
import { Option } from 'commander';
import { type Image, LifeStatus, Media } from '../../../shared/model.ts';
import { type Call, leaf, type Runtime } from '../command.ts';
import { listFor, namesOf, withLimit } from '../lists.ts';
import { runOperation, withWait } from '../operation.ts';
import type { Column } from '../table.ts';
import { formatAge, formatBytes } from '../units.ts';
import { addImageCacheCommands } from './image-cache.ts';
import { addImageImport } from './image-import.ts';
import { addImageReplicaCommands } from './image-replica.ts';

const columns: Column<Image>[] = [
  { title: 'NAME', value: i => i.name },
  { title: 'MEDIA', value: i => i.media, yields: 2 },
  { title: 'FORMAT', value: i => i.format, yields: 1 },
  { title: 'STATUS', value: i => i.status },
  { title: 'SIZE', value: i => formatBytes(i.size), align: 'right' },
  { title: 'VIRTUAL', value: i => formatBytes(i.virtualSize), align: 'right' },
  { title: 'REPLICAS', value: i => String(i.replicas.filter(r => r.status === 'ready').length), align: 'right', yields: 3 },
  { title: 'AGE', value: i => formatAge(i.createdAt), align: 'right', yields: 4 },
  { title: 'ID', value: i => i.id, yields: 5, whole: true },
];

/** `cistern image`: templates on backup storages, and their cached copies. */
export function addImageCommands(runtime: Runtime, program: Command): void {
  const image = program.command('image').description('templates of volumes, and their cached copies');
  withLimit(
    leaf(runtime, image, {
      usage: 'list',
      summary: 'List images',
      examples: ['image list', 'image list --media iso --output json', 'image list --backup-storage vault'],
      action: async call => {
        const { media, status, backupStorage } = call.options as {
          media?: Media;
          status?: Image['status'];
          backupStorage?: string;
        };
        call.out.list(
          columns,
          await listFor(call, page => call.client.listImages({ query: { ...page, media, status, backupStorage } })),
        );
      },
    })
      .addOption(new Option('--media <media>', 'only of this kind').choices(Media.options))
      .addOption(new Option('--status <status>', 'only with this status').choices(LifeStatus.options))
      .option('--backup-storage <backup-storage>', 'only those with a replica there'),
  );
  leaf(runtime, image, {
    usage: 'show <image>',
    summary: 'Show an image and its replicas',
    examples: ['image show debian12'],
    action: async call => show(call, await call.client.getImage({ params: { ref: call.args[0]! } })),
  });
  addImageImport(runtime, image);
  leaf(runtime, image, {
    usage: 'rename <image> <name>',
    summary: 'Rename an image',
    examples: ['image rename debian12 debian12-old'],
    action: async call =>
      show(call, await call.client.renameImage({ params: { ref: call.args[0]! }, body: { name: call.args[1]! } })),
  });
  withWait(
    leaf(runtime, image, {
      usage: 'verify <image>',
      summary: 'Read an image on all of its backup storages, and compare each part with its manifest',
      examples: ['image verify debian12'],
      action: call => runOperation(call, options => call.client.verifyImage({ params: { ref: call.args[0]! } }, options)),
    }),
  );
  withWait(
    leaf(runtime, image, {
      usage: 'delete <image>',
      summary: 'Delete an image from all backup storages; volumes made from it live on',
      examples: ['image delete debian12-old'],
      action: call => runOperation(call, options => call.client.deleteImage({ params: { ref: call.args[0]! } }, options)),
    }),
  );
  addImageReplicaCommands(runtime, image);
  addImageCacheCommands(runtime, image);
}

async function show(call: Call, image: Image): Promise<void> {
  const nameOf = await namesOf(call, 'backup-storage');
  call.out.show(image, [
    ['name', image.name],
    ['id', image.id],
    ['status', image.status],
    ['media', image.media],
    ['format', image.format],
    ['size', formatBytes(image.size)],
    ['virtual size', formatBytes(image.virtualSize)],
    ['digest', image.digest ?? undefined],
    ['created', `${image.createdAt} (${formatAge(image.createdAt)} ago)`],
    ...image.replicas.map((replica): [string, string] => [
      'replica',
      `${nameOf(replica.backupStorageId)} (${replica.status}${replica.reason === null ? '' : `: ${replica.reason}`})`,
    ]),
  ]);
}
