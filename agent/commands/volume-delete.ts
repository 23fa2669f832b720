import { CisternError } from '../../shared/errors.ts';
import type { Pool } from '../primary/driver.ts';
import type { Handler } from './handler.ts';

export const deleteVolumes: Handler<'volume.delete'> = async ({ pool: ref, volumeIds, unchanged, forGood = false }, ctx) => {
  const pool = await ctx.pool(ref);
  if (unchanged) await refuseChanged(pool, volumeIds[0]!, unchanged);
  const trashed = await pool.trash(volumeIds, ctx.signal);
  if (forGood) await pool.discard(volumeIds);
  return { trashed };
};

async function refuseChanged(
  pool: Pool,
  volumeId: string,
  { layerId, version }: { layerId: string; version: string },
): Promise<void> {
  const now = await pool.version(volumeId, layerId).catch((error: unknown) => {
    // it went to the trash at the first try
    if (error instanceof CisternError && error.code === 'VOLUME_MISSING') return version;
    throw error;
  });
  if (now !== version)
    throw new CisternError('VOLUME_IN_USE', `the volume ${volumeId} was written to while it was copied`, {
      action: 'Stop the VM that uses it, then try again.',
    });
}
