import type { Command } from 'commander';
import { type Call, leaf, type Runtime } from '../command.ts';
import { namesOf, readAll } from '../lists.ts';
import { formatBytes } from '../units.ts';
import { isFinal } from '../watch.ts';
import { backupStorageColumns } from './backup-storage.ts';
import { hostColumns } from './host.ts';
import { operationColumns } from './operation.ts';
import { primaryStorageColumns } from './primary-storage.ts';

const RECENT = 5;

/** `cistern status`: everything on one screen. */
export function addStatusCommand(runtime: Runtime, program: Command): void {
  leaf(runtime, program, {
    usage: 'status',
    summary: 'Show everything on one screen',
    examples: ['status', 'status --output json'],
    action: showStatus,
  });
}

async function showStatus(call: Call): Promise<void> {
  const { client, out } = call;
  const [service, { recovery }, hosts, primary, backup, images, volumes, operations, nameOf] = await Promise.all([
    client.healthz(),
    client.getController(),
    readAll(page => client.listHosts({ query: page })),
    readAll(page => client.listPrimaryStorages({ query: page })),
    readAll(page => client.listBackupStorages({ query: page })),
    readAll(page => client.listImages({ query: page })),
    readAll(page => client.listVolumes({ query: page })),
    readAll(page => client.listOperations({ query: page }), 50),
    namesOf(call, 'cluster'),
  ]);
  const running = operations.items.filter(operation => !isFinal(operation));
  const failed = operations.items.filter(operation => operation.state === 'failed').slice(0, RECENT);
  const sum = (values: (number | null)[]): number => values.reduce<number>((total, value) => total + (value ?? 0), 0);
  const counts = {
    images: { count: images.items.length, size: sum(images.items.map(image => image.size)) },
    volumes: {
      count: volumes.items.length,
      size: sum(volumes.items.map(volume => volume.size)),
      allocated: sum(volumes.items.map(volume => volume.allocated)),
    },
  };
  const object = {
    controller: { url: call.connection.url, version: service.version, recovery },
    hosts: hosts.items,
    primaryStorages: primary.items,
    backupStorages: backup.items,
    ...counts,
    running,
    failed,
  };
  const section = (title: string, count: number, table: string): string => (count > 0 ? `${title}\n${table}` : `${title}\nnone`);
  out.show(
    object,
    [
      ['controller', `${call.connection.url}, version ${service.version}`],
      ['recovery', recovery ? `needed: ${recovery.reason}` : undefined],
      ['images', `${counts.images.count}, ${formatBytes(counts.images.size)} stored`],
      [
        'volumes',
        `${counts.volumes.count}, ${formatBytes(counts.volumes.size)} virtual, ${formatBytes(counts.volumes.allocated)} allocated`,
      ],
    ],
    [
      section('Hosts', hosts.items.length, out.table(hostColumns(nameOf), hosts.items)),
      section('Primary storages', primary.items.length, out.table(primaryStorageColumns(nameOf), primary.items)),
      section('Backup storages', backup.items.length, out.table(backupStorageColumns, backup.items)),
      section('Running operations', running.length, out.table(operationColumns, running)),
      failed.length > 0
        ? section(`Failed of the last ${operations.items.length} operations`, failed.length, out.table(operationColumns, failed))
        : '',
    ],
  );
}
