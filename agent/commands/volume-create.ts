import { CisternError } from '../../shared/errors.ts';
import type { Handler } from './handler.ts';

/** qcow2 counts in sectors. */
const SECTOR = 512;

export const createVolumes: Handler<'volume.create'> = async ({ pool: ref, volumes, size: asked, backing }, ctx) => {
  const wanted = asked ?? backing?.virtualSize;
  if (wanted === undefined) throw new CisternError('BAD_REQUEST', 'making volumes: an empty volume needs a size');
  const ids = new Set(volumes.flatMap(volume => [volume.id, volume.layerId]));
  if (ids.size < 2 * volumes.length) throw new CisternError('BAD_REQUEST', 'making volumes: each needs ids of its own');
  const size = Math.ceil(wanted / SECTOR) * SECTOR;
  const pool = await ctx.pool(ref);
  const { allocated } = await pool.createVolumes(ctx.taskId, volumes, size, backing, ctx.signal, done =>
    ctx.progress('create', done, volumes.length, 'items'),
  );
  return { size, allocated };
};
