import { CisternError } from '../../shared/errors.ts';
import { newId } from '../../shared/id.ts';
import type { CommandInput } from '../../shared/commands/index.ts';
import type { Trx } from '../db/database.ts';
import { claimName, findImage, findPrimaryStorage } from '../db/find.ts';
import type { Row } from '../db/schema.ts';
import { discard } from '../operations/garbage.ts';
import type { Workflow } from '../operations/workflow.ts';
import { place } from '../policy/placement.ts';
import { claimCacheRoom, ensureCached, forgetUnmade, onSoundImage } from './cache-entry.ts';
import { poolRef } from '../fleet/refs.ts';

interface Request {
  name: string;
  kind?: 'root' | 'data';
  image?: string;
  size?: number;
  count: number;
  primaryStorage?: string;
  host?: string;
}

interface Plan {
  storageId: string;
  hostId: string;
  workerHostId: string;
  /** The image must be brought into the cache first. */
  fill: boolean;
  image: { id: string; format: 'qcow2' | 'raw'; virtualSize: number; digest: string } | null;
  size: number;
  volumeKind?: 'root' | 'data';
  volumes: { id: string; layerId: string; name: string }[];
}

/** Rows of one insert: SQLite takes 32,766 values in a statement. */
const ROWS = 1000;

/** Makes volumes, empty or as linked clones: name, room and place are claimed at once, so what cannot be done is refused at once. */
export const createVolumes: Workflow<Request, Plan> = {
  kind: 'volume.create',
  async accept(trx, request, operationId, services) {
    const image = request.image === undefined ? undefined : await findImage(trx, request.image);
    if (image && image.status !== 'ready') throw new CisternError('WRONG_STATE', `image ${image.name} is ${image.status}`);
    if (image?.media === 'iso')
      throw new CisternError('BAD_REQUEST', `image ${image.name} is an ISO; a volume cannot be cloned from it`);
    const least = image?.virtual_size ?? 0;
    const size = request.size ?? least;
    if (size < least)
      throw new CisternError('BAD_REQUEST', `size: ${size} bytes are less than image ${image!.name} has (${least})`);
    if (size % 512 !== 0) throw new CisternError('BAD_REQUEST', `size: ${size} bytes are not a whole number of 512-byte sectors`);
    const names =
      request.count === 1 ? [request.name] : Array.from({ length: request.count }, (_, i) => `${request.name}-${i + 1}`);
    await claimNames(trx, names);
    const chosen = await place(
      trx,
      services.fleet,
      {
        wanted: { virtual: size * request.count, physical: 0 },
        image: image && { id: image.id, size: image.size ?? 0 },
        storage: request.primaryStorage,
        host: request.host,
      },
      services.config.physicalThreshold,
    );
    const pool = { storageId: chosen.storageId, hostId: chosen.hostId };
    if (image && !chosen.cached) await claimCacheRoom(trx, operationId, pool, image);
    const volumes = names.map(name => ({ id: newId(), layerId: newId(), name }));
    const kind = request.kind ?? (image?.media === 'root' ? 'root' : 'data');
    const created_at = new Date().toISOString();
    const layout = await findPrimaryStorage(trx, pool.storageId);
    const rows: Row<'volumes'>[] = volumes.map(volume => ({
      id: volume.id,
      name: volume.name,
      kind,
      status: 'creating',
      primary_storage_id: pool.storageId,
      host_id: pool.hostId,
      image_id: image?.id ?? null,
      layer_id: volume.layerId,
      format: layout.volume_format,
      path: volumePath(layout, volume.id, volume.layerId),
      size,
      allocated: null,
      created_at,
      deleted_at: null,
      deleted_elapsed: null,
    }));
    for (let i = 0; i < rows.length; i += ROWS)
      await trx
        .insertInto('volumes')
        .values(rows.slice(i, i + ROWS))
        .execute();
    const plan: Plan = {
      ...pool,
      workerHostId: chosen.workerHostId,
      fill: image !== undefined && !chosen.cached,
      image: image ? { id: image.id, format: image.format, virtualSize: least, digest: image.digest! } : null,
      size,
      volumeKind: kind,
      volumes,
    };
    return { plan, resources: volumes.map(volume => ({ kind: 'volume', id: volume.id })) };
  },

  async run(op, plan) {
    const { services } = op;
    const pool = { storageId: plan.storageId, hostId: plan.hostId };
    const ids = plan.volumes.map(volume => volume.id);
    op.undo(
      'forget the volumes',
      async () =>
        void (await services.db.write(trx =>
          trx.deleteFrom('volumes').where('id', 'in', ids).where('status', '=', 'creating').execute(),
        )),
    );
    if (plan.image && plan.fill) {
      forgetUnmade(op, plan.image.id, pool);
      await ensureCached(op, plan.image.id, pool, plan.workerHostId);
    }
    op.undo('remove what was made', () =>
      discard(op, plan.workerHostId, { kind: 'volumes', storageId: plan.storageId, volumeIds: ids }),
    );
    const made = await onSoundImage(op, plan.image?.id ?? null, pool, plan.workerHostId, again =>
      op.task(`create${again}`, plan.workerHostId, 'volume.create', async (): Promise<CommandInput<'volume.create'>> => ({
        pool: await poolRef(services, plan.storageId),
        volumes: plan.volumes.map(volume => ({ ...volume, kind: plan.volumeKind })),
        size: plan.size,
        backing: plan.image && {
          imageId: plan.image.id,
          format: plan.image.format,
          virtualSize: plan.image.virtualSize,
          digest: plan.image.digest,
        },
      })),
    );
    op.finish({ volumes: plan.volumes.map(({ id, name }) => ({ id, name })), size: made.size }, async trx => {
      await trx
        .updateTable('volumes')
        .set({ status: 'ready', size: made.size, allocated: made.allocated })
        .where('id', 'in', ids)
        .execute();
      if (plan.image) {
        await trx
          .updateTable('cache_entries')
          .set({ last_used_at: new Date().toISOString() })
          .where('image_id', '=', plan.image.id)
          .where('primary_storage_id', '=', plan.storageId)
          .where('host_id', '=', plan.hostId)
          .execute();
      }
    });
  },
};

/** How a volume shows to who runs VMs, in its pool. */
export const volumePath = (storage: Row<'primary_storages'>, id: string, layerId: string): string =>
  storage.volume_path.replace('{volume}', id).replace('{layer}', layerId);

async function claimNames(trx: Trx, names: string[]): Promise<void> {
  await claimName(trx, 'volumes', 'volume', names[0]!);
  if (names.length === 1) return;
  const longest = names.at(-1)!;
  if (longest.length > 63) throw new CisternError('BAD_REQUEST', `name: "${longest}" would be longer than 63 characters`);
  const taken = await trx
    .selectFrom('volumes')
    .select('name')
    .where('name', 'in', names)
    .where('status', '<>', 'deleted')
    .limit(3)
    .execute();
  if (taken.length > 0)
    throw new CisternError('NAME_TAKEN', `there are volumes of these names already: ${taken.map(row => row.name).join(', ')}`);
}
