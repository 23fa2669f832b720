import type { FoundImage } from '../../shared/commands/store.ts';
import type { Trx } from '../db/database.ts';
import { looksLikeId } from '../db/find.ts';
import type { Row } from '../db/schema.ts';
import type { Services } from '../services.ts';
import type { Difference } from './difference.ts';

type Manifest = NonNullable<FoundImage['manifest']>;

/** Whether what a manifest tells is the image that was published. */
export const isSame = (image: Row<'images'>, { format, size, digest }: Manifest): boolean =>
  image.format === format && image.size === size && image.digest === digest;

/** Makes the rows of an image that nobody knew, as its manifest describes it. What it holds is judged when it first goes into a cache. */
export async function adoptImage(
  trx: Trx,
  { events }: Services,
  storeId: string,
  id: string,
  manifest: Manifest,
): Promise<Difference> {
  const name = await freeName(trx, 'images', id, manifest.name);
  const { format, size, digest, createdAt: created_at } = manifest;
  const media = manifest.media ?? 'root';
  const row = { id, name, media, format, status: 'ready', size, virtual_size: manifest.virtualSize, digest, created_at } as const;
  await trx.insertInto('images').values(row).execute();
  await adoptReplica(trx, storeId, id);
  await events.append(trx, 'image.adopted', { kind: 'image', id }, `image ${name} was adopted: nobody knew of it`);
  return { what: 'adopted', kind: 'image', id, name, size, createdAt: created_at };
}

/** Makes the row of a replica that nobody knew, or that was missing, and so has its image back. */
export async function adoptReplica(trx: Trx, storeId: string, imageId: string): Promise<void> {
  const row = { image_id: imageId, backup_storage_id: storeId, status: 'ready' as const, created_at: new Date().toISOString() };
  await trx
    .insertInto('replicas')
    .values(row)
    .onConflict(c => c.columns(['image_id', 'backup_storage_id']).doUpdateSet({ status: 'ready', reason: null }))
    .execute();
  await trx.updateTable('images').set({ status: 'ready' }).where('id', '=', imageId).where('status', '=', 'missing').execute();
}

/** The name that it had, unless another one has it now. */
export async function freeName(
  trx: Trx,
  table: 'images' | 'volumes',
  id: string,
  wanted: string | null | undefined,
): Promise<string> {
  for (const name of [wanted, `adopted-${id.slice(0, 8)}`]) {
    if (name === undefined || name === null || looksLikeId(name)) continue;
    const query = trx.selectFrom(table).select('id').where('name', '=', name).where('status', '<>', 'deleted');
    if (!(await query.executeTakeFirst())) return name;
  }
  return `adopted-${id}`;
}
