import { CisternError } from '../../shared/errors.ts';
import type { Reader } from './database.ts';
import type { Row } from './schema.ts';

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
/** Things are named by id or by name; a name never looks like an id, since names that are UUIDs are refused when they are given. */
/** Whether it could only be an id: such names are refused. */
export const looksLikeId = (name: string): boolean => UUID.test(name.toLowerCase());
const by = (ref: string): 'id' | 'name' => (UUID.test(ref) ? 'id' : 'name');
const missing = (noun: string, ref: string): CisternError => new CisternError('NOT_FOUND', `there is no ${noun} "${ref}"`);

export async function findCluster(db: Reader, ref: string): Promise<Row<'clusters'>> {
  const row = await db.selectFrom('clusters').selectAll().where(by(ref), '=', ref).executeTakeFirst();
  if (!row) throw missing('cluster', ref);
  return row;
}

export async function findHost(db: Reader, ref: string): Promise<Row<'hosts'>> {
  const row = await db.selectFrom('hosts').selectAll().where(by(ref), '=', ref).executeTakeFirst();
  if (!row) throw missing('host', ref);
  return row;
}

export async function findPrimaryStorage(db: Reader, ref: string): Promise<Row<'primary_storages'>> {
  const row = await db.selectFrom('primary_storages').selectAll().where(by(ref), '=', ref).executeTakeFirst();
  if (!row) throw missing('primary storage', ref);
  return row;
}

export async function findBackupStorage(db: Reader, ref: string): Promise<Row<'backup_storages'>> {
  const row = await db.selectFrom('backup_storages').selectAll().where(by(ref), '=', ref).executeTakeFirst();
  if (!row) throw missing('backup storage', ref);
  return row;
}

/** An image that is not deleted; by id also one that is. */
export async function findImage(db: Reader, ref: string): Promise<Row<'images'>> {
  let query = db.selectFrom('images').selectAll().where(by(ref), '=', ref);
  if (by(ref) === 'name') query = query.where('status', '<>', 'deleted');
  const row = await query.executeTakeFirst();
  if (!row) throw missing('image', ref);
  return row;
}

/** A volume that is not deleted; by id also one in the trash. */
export async function findVolume(db: Reader, ref: string): Promise<Row<'volumes'>> {
  let query = db.selectFrom('volumes').selectAll().where(by(ref), '=', ref);
  if (by(ref) === 'name') query = query.where('status', '<>', 'deleted');
  const row = await query.executeTakeFirst();
  if (!row) throw missing('volume', ref);
  return row;
}

export async function findToken(db: Reader, ref: string): Promise<Row<'tokens'>> {
  const row = await db.selectFrom('tokens').selectAll().where(by(ref), '=', ref).executeTakeFirst();
  if (!row) throw missing('token', ref);
  return row;
}

/** Throws NAME_TAKEN or, for names that look like ids, BAD_REQUEST. */
export async function claimName(
  db: Reader,
  table: 'clusters' | 'hosts' | 'primary_storages' | 'backup_storages' | 'images' | 'volumes' | 'tokens',
  noun: string,
  name: string,
): Promise<void> {
  if (looksLikeId(name)) throw new CisternError('BAD_REQUEST', `"${name}" looks like an id and cannot be a name`);
  const row =
    table === 'images' || table === 'volumes'
      ? await db.selectFrom(table).select('id').where('name', '=', name).where('status', '<>', 'deleted').executeTakeFirst()
      : await db.selectFrom(table).select('id').where('name', '=', name).executeTakeFirst();
  if (row) throw new CisternError('NAME_TAKEN', `there is a ${noun} "${name}" already (${row.id})`);
}
