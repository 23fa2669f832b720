import type { Command } from 'commander';
import { Option } from 'commander';
import { ImageFormat, Media, SourceFormat } from '../../../shared/model.ts';
import { type Call, leaf, type Runtime } from '../command.ts';
import { runOperation, startOnce, withWait } from '../operation.ts';
import { openUpload, uploadImage } from '../upload.ts';
import { collect } from './storage-options.ts';

interface ImportOptions {
  url?: string;
  file?: string;
  object?: string;
  format?: ImageFormat;
  sourceFormat?: SourceFormat;
  sha256?: string;
  media?: Media;
  backupStorage?: string[];
  host?: string;
}

/** `cistern image import`: from a URL, a file of this machine or an object that lies on a backup storage. */
export function addImageImport(runtime: Runtime, image: Command): void {
  withWait(
    leaf(runtime, image, {
      usage: 'import <name>',
      summary: 'Import an image: qcow2, raw, vmdk, vhdx or vdi, plain or compressed by gz, xz or zst',
      examples: [
        'image import debian12 --url https://cloud.debian.org/images/cloud/bookworm/latest/debian-12-genericcloud-amd64.qcow2',
        'image import win --file win.vhdx --backup-storage shelf --backup-storage vault',
        'image import old --object vault:exports/old.raw --source-format raw',
        'zstd -dc disk.raw.zst | cistern image import disk --file - --source-format raw',
        '--url http://controller:7070 image import debian12 --url https://example.org/debian12.qcow2',
      ],
      action: importImage,
    })
      .option('--url <url>', 'fetched by a host (for the address of the controller, write --url before "image")')
      .option('--file <path>', 'sent from here; - is standard input')
      .option('--object <backup-storage:path>', 'lies on a backup storage already')
      .addOption(new Option('--format <format>', 'of the stored image (default: qcow2)').choices(ImageFormat.options))
      .addOption(
        new Option('--source-format <format>', 'what the source must be; else what its header says').choices(
          SourceFormat.options,
        ),
      )
      .option('--sha256 <digest>', 'expected, of the bytes as they come in')
      .addOption(new Option('--media <media>', 'root, data or iso (default: root)').choices(Media.options))
      .option('--backup-storage <backup-storage>', 'where a replica goes; may be repeated; else the one with most room', collect)
      .option('--host <host>', 'the host that does the work; else the least busy one'),
  );
}

async function importImage(call: Call): Promise<number> {
  const { url, file, object, format, sourceFormat, sha256, media, backupStorage, host } = call.options as ImportOptions;
  if ([url, file, object].filter(source => source !== undefined).length !== 1)
    call.usage('say where the image comes from: one of --url, --file and --object');
  const common = {
    name: call.args[0]!,
    format,
    sourceFormat,
    sha256: sha256?.toLowerCase(),
    media,
    backupStorages: backupStorage,
    host,
  };
  if (file !== undefined) {
    if (call.options.wait === false) call.usage('--no-wait does not go with --file: the file is sent by this command');
    using upload = await openUpload(file, call.io);

    const operation = await startOnce(options =>
      call.client.importImage({ body: { ...common, source: { type: 'upload', size: upload.size } } }, options),
    );
    return await uploadImage(call, operation, upload);
  }
  const source = url !== undefined ? { type: 'url' as const, url } : { type: 'object' as const, ...splitObject(call, object!) };
  return runOperation(call, options => call.client.importImage({ body: { ...common, source } }, options));
}

function splitObject(call: Call, object: string): { backupStorage: string; path: string } {
  const colon = object.indexOf(':');
  if (colon <= 0 || colon === object.length - 1)
    call.usage(`--object ${object}: write BACKUP_STORAGE:PATH, such as vault:exports/old.raw`);
  return { backupStorage: object.slice(0, colon), path: object.slice(colon + 1) };
}
