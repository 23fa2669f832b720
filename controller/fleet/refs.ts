import type { PoolRef, StoreRef } from '../../shared/commands/refs.ts';
import { CisternError } from '../../shared/errors.ts';
import type { DriverFacts, Facts } from '../../shared/model.ts';
import type { Reader } from '../db/database.ts';
import { findBackupStorage, findPrimaryStorage } from '../db/find.ts';
import type { Row } from '../db/schema.ts';
import type { Services } from '../services.ts';

/** A primary storage as agents need it, its settings unsealed. */
export async function poolRef(services: Services, storageId: string): Promise<PoolRef> {
  const row = await findPrimaryStorage(services.db.read, storageId);
  return {
    id: row.id,
    type: row.type,
    config: services.secrets.open(row.config_sealed, `primary_storages.config_sealed/${row.id}`),
  };
}

/** A backup storage as agents need it, its settings unsealed. */
export async function storeRef(services: Services, storeId: string): Promise<StoreRef> {
  const row = await findBackupStorage(services.db.read, storeId);
  return {
    id: row.id,
    type: row.type,
    config: services.secrets.open(row.config_sealed, `backup_storages.config_sealed/${row.id}`),
  };
}

/** What some connected host says of a storage driver. DRIVER_UNKNOWN names the types that there are. */
export async function driverFacts(db: Reader, side: 'primary' | 'backup', type: string): Promise<DriverFacts> {
  const hosts = await db
    .selectFrom('hosts')
    .select('facts_json')
    .where('status', '=', 'connected')
    .where('facts_json', 'is not', null)
    .execute();
  if (hosts.length === 0)
    throw new CisternError('NO_HOST', `no host is connected that could say what a ${side} storage of the type ${type} needs`);
  const all = hosts.flatMap(host => (JSON.parse(host.facts_json!) as Facts)[side]);
  const found = all.find(driver => driver.type === type);
  if (found) return found;
  throw new CisternError(
    'DRIVER_UNKNOWN',
    `${side} storage type ${type}: the connected hosts know ${[...new Set(all.map(driver => driver.type))].join(', ')}`,
  );
}

/** The settings without those that the driver's schema marks as secret (`writeOnly`). */
export function withoutSecrets(driver: DriverFacts, config: Record<string, unknown>): Record<string, unknown> {
  const properties = (driver.config.properties ?? {}) as Record<string, { writeOnly?: boolean }>;
  return Object.fromEntries(
    Object.entries(config).filter(([key]) => Object.hasOwn(properties, key) && !properties[key]!.writeOnly),
  );
}

/** The backup storages that replicas shall go to: those named, or the one with most room. All must be connected and enabled. */
export async function chooseStores(db: Reader, refs: string[]): Promise<Row<'backup_storages'>[]> {
  if (refs.length > 0) {
    const rows: Row<'backup_storages'>[] = [];
    for (const ref of new Set(refs)) {
      const row = await findBackupStorage(db, ref);
      if (row.state !== 'enabled' || row.status !== 'connected')
        throw new CisternError(
          'NO_STORAGE',
          `backup storage ${row.name} is ${row.status} and ${row.state}${row.reason ? `: ${row.reason}` : ''}`,
        );
      if (!rows.some(other => other.id === row.id)) rows.push(row);
    }
    return rows;
  }
  const usable = await db
    .selectFrom('backup_storages')
    .selectAll()
    .where('state', '=', 'enabled')
    .where('status', '=', 'connected')
    .orderBy('available', 'desc')
    .execute();
  if (!usable[0]) throw new CisternError('NO_STORAGE', 'no backup storage is connected and enabled');
  return [usable[0]];
}
