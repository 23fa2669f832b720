import { CisternError } from '../../shared/errors.ts';
import type { Reader } from '../db/database.ts';
import type { Row } from '../db/schema.ts';

/**
 * The backup storages that an image can be had from, best first, those of `except` left out; NO_STORAGE where there is none. Replicas that
 * are damaged, as far as is known, come last: each part is verified, so trying them does no harm.
 */
export async function sourceStores(db: Reader, image: Row<'images'>, except: readonly string[] = []): Promise<string[]> {
  const replicas = await db
    .selectFrom('replicas')
    .innerJoin('backup_storages', 'backup_storages.id', 'replicas.backup_storage_id')
    .select('backup_storages.id')
    .where('image_id', '=', image.id)
    .where('replicas.status', 'in', ['ready', 'damaged'])
    .where('backup_storages.state', '<>', 'disabled')
    .orderBy('replicas.status', 'desc')
    // those that answered last time first
    .orderBy('backup_storages.status')
    .execute();
  const usable = replicas.map(replica => replica.id).filter(id => !except.includes(id));
  if (usable.length === 0 || image.digest === null)
    throw new CisternError(
      'NO_STORAGE',
      `image ${image.name} has no ${except.length > 0 ? 'other ' : ''}replica on a backup storage that is enabled`,
    );
  return usable;
}
