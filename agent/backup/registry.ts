/** Every kind of backup storage that this agent can use. */
import { z } from 'zod';
import { CisternError } from '../../shared/errors.ts';
import type { DriverFacts } from '../../shared/model.ts';
import { dir } from './dir.ts';
import type { BackupDriver, BackupStore } from './driver.ts';
import { loadPlugIns } from './plug-ins.ts';
import { rbd } from './rbd.ts';
import { s3 } from './s3.ts';
import { sftp } from './sftp.ts';
import { swift } from './swift.ts';

export const backupDrivers: readonly BackupDriver[] = [dir, rbd, s3, sftp, swift] as BackupDriver[];

let all = backupDrivers;
let added: { names: string; drivers: Promise<BackupDriver[]> } | undefined;

/** Adds the drivers of others that the agent's configuration names, once in a process. DRIVER_INVALID where one cannot be used. */
export async function addPlugIns(names: readonly string[]): Promise<void> {
  const key = names.join('\n');
  const own = backupDrivers.map(driver => driver.type);
  if (added?.names !== key) added = { names: key, drivers: loadPlugIns(names, own) };
  all = [...backupDrivers, ...(await added.drivers)];
}

/** The driver of a type. DRIVER_UNKNOWN names the types there are. */
export function findBackupDriver(type: string): BackupDriver {
  const driver = all.find(one => one.type === type);
  if (driver) return driver;
  const known = all.map(one => one.type).join(', ');
  throw new CisternError('DRIVER_UNKNOWN', `there is no backup storage driver "${type}" on this host; there are ${known}`);
}

/** What the agent advertises of its drivers. */
export const backupDriverFacts = (): DriverFacts[] =>
  all.map(({ type, title, shared, config }) => ({
    type,
    title,
    shared,
    config: z.toJSONSchema(config, { io: 'input' }),
  }));

/** Opens a backup storage as a command names it. DRIVER_UNKNOWN, STORE_CONFIG with the wrong fields, or the driver's STORE_* errors. */
export async function openBackupStore(
  ref: { id: string; type: string; config: unknown },
  signal: AbortSignal,
): Promise<BackupStore> {
  const driver = findBackupDriver(ref.type);
  const config = driver.config.safeParse(ref.config);
  if (!config.success) {
    throw new CisternError(
      'STORE_CONFIG',
      `the configuration of a ${ref.type} backup storage is not valid: ${z.prettifyError(config.error)}`,
    );
  }
  return driver.connect({ id: ref.id, config: config.data }, signal);
}
