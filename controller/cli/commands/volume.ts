import type { Command } from 'commander';
import { Option } from 'commander';
import { ImageFormat, LifeStatus, type Volume, VolumeKind } from '../../../shared/model.ts';
import { type Call, leaf, type Runtime } from '../command.ts';
import { listFor, type NameOf, namesOf, withLimit } from '../lists.ts';
import { runOperation, withWait } from '../operation.ts';
import type { Column } from '../table.ts';
import { formatAge, formatBytes, parseCount, parseSize } from '../units.ts';
import { collect } from './storage-options.ts';

const columns = (nameOf: NameOf): Column<Volume>[] => [
  { title: 'NAME', value: v => v.name },
  { title: 'KIND', value: v => v.kind, yields: 3 },
  { title: 'STATUS', value: v => v.status },
  { title: 'SIZE', value: v => formatBytes(v.size), align: 'right' },
  { title: 'ALLOCATED', value: v => formatBytes(v.allocated), align: 'right', yields: 1 },
  { title: 'PRIMARY STORAGE', value: v => nameOf(v.primaryStorageId) },
  { title: 'HOST', value: v => nameOf(v.hostId), yields: 2 },
  { title: 'IMAGE', value: v => nameOf(v.imageId), yields: 4 },
  { title: 'AGE', value: v => formatAge(v.createdAt), align: 'right', yields: 5 },
  { title: 'ID', value: v => v.id, yields: 6, whole: true },
];

/** `cistern volume`: the disks that VMs run on. */
export function addVolumeCommands(runtime: Runtime, program: Command): void {
  const volume = program.command('volume').description('disks of VMs');
  addReading(runtime, volume);
  addCreate(runtime, volume);
  leaf(runtime, volume, {
    usage: 'rename <volume> <name>',
    summary: 'Rename a volume',
    examples: ['volume rename web-1 web-old'],
    action: async call =>
      show(call, await call.client.updateVolume({ params: { ref: call.args[0]! }, body: { name: call.args[1]! } })),
  });
  withWait(
    leaf(runtime, volume, {
      usage: 'resize <volume> <size>',
      summary: 'Grow a volume; the guest sees the new size after a restart',
      examples: ['volume resize web-1 20G'],
      action: call => {
        const size = sizeArgument(call, call.args[1]!);
        return runOperation(call, options =>
          call.client.resizeVolume({ params: { ref: call.args[0]! }, body: { size } }, options),
        );
      },
    }),
  );
  addUpload(runtime, volume);
  addMigrate(runtime, volume);
  withWait(
    leaf(runtime, volume, {
      usage: 'delete <volume...>',
      summary: 'Delete volumes; they stay in the trash for a while',
      examples: ['volume delete web-1', 'volume delete web-1 web-2 web-3'],
      action: call => {
        const [ref, ...others] = call.args as [string, ...string[]];
        if (others.length === 0) return runOperation(call, options => call.client.deleteVolume({ params: { ref } }, options));
        return runOperation(call, options => call.client.deleteVolumes({ body: { volumes: call.args } }, options));
      },
    }),
  );
}

function addReading(runtime: Runtime, volume: Command): void {
  withLimit(
    leaf(runtime, volume, {
      usage: 'list',
      summary: 'List volumes',
      examples: ['volume list', 'volume list --image debian12 --primary-storage fast', 'volume list --output json'],
      action: async call => {
        const { primaryStorage, image, host, status, kind } = call.options as {
          primaryStorage?: string;
          image?: string;
          host?: string;
          status?: Volume['status'];
          kind?: Volume['kind'];
        };
        const volumes = await listFor(call, page =>
          call.client.listVolumes({ query: { ...page, primaryStorage, image, host, status, kind } }),
        );
        call.out.list(columns(await namesOf(call, 'primary-storage', 'host', 'image')), volumes);
      },
    })
      .option('--primary-storage <primary-storage>', 'only on this primary storage')
      .option('--image <image>', 'only clones of this image')
      .option('--host <host>', 'only on this host')
      .addOption(new Option('--status <status>', 'only with this status').choices(LifeStatus.options))
      .addOption(new Option('--kind <kind>', 'only of this kind').choices(VolumeKind.options)),
  );
  leaf(runtime, volume, {
    usage: 'show <volume>',
    summary: 'Show a volume',
    examples: ['volume show web-1'],
    action: async call => show(call, await call.client.getVolume({ params: { ref: call.args[0]! } })),
  });
}

function addCreate(runtime: Runtime, volume: Command): void {
  withWait(
    leaf(runtime, volume, {
      usage: 'create <name>',
      summary: 'Create volumes: empty, or linked clones of an image',
      examples: [
        'volume create web --image debian12',
        'volume create web --image debian12 --size 20G --count 20 --primary-storage fast',
        'volume create logs --size 100G',
      ],
      action: call => {
        const { image, size, count, primaryStorage, host, kind } = call.options as {
          image?: string;
          size?: number;
          count?: number;
          primaryStorage?: string;
          host?: string;
          kind?: Volume['kind'];
        };
        if (image === undefined && size === undefined) call.usage('an empty volume needs --size; a clone needs --image');
        return runOperation(call, options =>
          call.client.createVolumes({ body: { name: call.args[0]!, image, size, count, primaryStorage, host, kind } }, options),
        );
      },
    })
      .option('--image <image>', 'image to clone')
      .option('--size <size>', "such as 20G; at least the image's", parseSize)
      .option('--count <count>', 'how many: NAME-1, NAME-2, ... (default: 1)', parseCount(1, 1000))
      .option('--primary-storage <primary-storage>', 'else placement chooses')
      .option('--host <host>', 'the host that will use it; decides where on local pools')
      .addOption(
        new Option('--kind <kind>', 'root or data (default: root for clones of root images, else data)').choices(
          VolumeKind.options,
        ),
      ),
  );
}

function addUpload(runtime: Runtime, volume: Command): void {
  withWait(
    leaf(runtime, volume, {
      usage: 'upload <volume> <name>',
      summary: 'Upload a volume, flattened, to backup storage as the image NAME',
      examples: ['volume upload web-1 web-golden', 'volume upload web-1 web-golden --compress --backup-storage vault'],
      action: call => {
        const { media, format, compress, backupStorage } = call.options as {
          media?: 'root' | 'data';
          format?: ImageFormat;
          compress?: boolean;
          backupStorage?: string[];
        };
        const body = { name: call.args[1]!, media, format, compress, backupStorages: backupStorage };
        return runOperation(call, options => call.client.uploadVolume({ params: { ref: call.args[0]! }, body }, options));
      },
    })
      .addOption(new Option('--media <media>', "root or data (default: the volume's kind)").choices(['root', 'data']))
      .addOption(new Option('--format <format>', 'of the image (default: qcow2)').choices(ImageFormat.options))
      .option('--compress', 'compress the image')
      .option('--backup-storage <backup-storage>', 'where a replica goes; may be repeated; else the one with most room', collect),
  );
}

function addMigrate(runtime: Runtime, volume: Command): void {
  withWait(
    leaf(runtime, volume, {
      usage: 'migrate <volume> <primary-storage>',
      summary: 'Move a volume that no program has open to another primary storage, through a host that sees both',
      examples: ['volume migrate web-1 shared', 'volume migrate web-1 ceph --flatten'],
      action: call => {
        const { host, flatten } = call.options as { host?: string; flatten?: boolean };
        const body = { primaryStorage: call.args[1]!, host, flatten };
        return runOperation(call, options => call.client.migrateVolume({ params: { ref: call.args[0]! }, body }, options));
      },
    })
      .option('--host <host>', 'that moves it; on a local storage it lies there afterwards')
      .option('--flatten', 'it stands alone afterwards; else on its image, where both storages keep files'),
  );
}

function sizeArgument(call: Call, text: string): number {
  try {
    return parseSize(text);
  } catch (error) {
    return call.usage(`size "${text}" is not valid: ${(error as Error).message}`);
  }
}

async function show(call: Call, volume: Volume): Promise<void> {
  const nameOf = await namesOf(call, 'primary-storage', 'host', 'image');
  call.out.show(volume, [
    ['name', volume.name],
    ['id', volume.id],
    ['status', volume.status],
    ['kind', volume.kind],
    ['format', volume.format],
    ['size', formatBytes(volume.size)],
    ['allocated', formatBytes(volume.allocated)],
    ['primary storage', nameOf(volume.primaryStorageId)],
    ['host', volume.hostId ? nameOf(volume.hostId) : undefined],
    ['image', volume.imageId ? nameOf(volume.imageId) : undefined],
    ['path in the pool', volume.path ?? undefined],
    ['created', `${volume.createdAt} (${formatAge(volume.createdAt)} ago)`],
    ['deleted', volume.deletedAt ?? undefined],
  ]);
}
