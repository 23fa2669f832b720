import type { CommandOutput } from '../../../shared/commands/index.ts';
import type { FoundVolume } from '../../../shared/commands/pool.ts';
import { metaPath, readMeta, VolumeMeta } from './meta.ts';
import { type OpenPool } from './paths.ts';
import { allocated, eachEntry } from './usage.ts';

/** Everything in a pool with what its meta.json tells; a damaged one tells nothing, and stops nothing. */
export async function scan(pool: OpenPool, signal: AbortSignal): Promise<CommandOutput<'pool.scan'>> {
  const volumes = (area: 'volumes' | 'trash'): Promise<FoundVolume[]> =>
    eachEntry(pool, area, signal, async (id, folder) => {
      const meta = await readMeta(metaPath(folder), VolumeMeta).catch(() => undefined);
      return {
        id,
        size: meta?.size ?? null,
        allocated: await allocated(folder),
        imageId: meta?.backing?.imageId ?? null,
        createdAt: meta?.createdAt ?? null,
      };
    });
  const cache = await eachEntry(pool, 'cache', signal, async (imageId, folder) => ({
    imageId,
    allocated: await allocated(folder),
  }));
  return { volumes: await volumes('volumes'), trash: await volumes('trash'), cache };
}
