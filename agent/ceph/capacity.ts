import { CisternError } from '../../shared/errors.ts';
import type { Capacity } from '../../shared/model.ts';
import type { Cluster } from './cluster.ts';

/** Of the pool, by `ceph df`; null where the cluster does not tell: its statistics need a mgr, and a user who may ask. */
export async function capacity(cluster: Cluster): Promise<Capacity | null> {
  try {
    const { pools } = JSON.parse(await cluster.call('ceph', ['df', '--format', 'json'])) as {
      pools?: { name?: string; stats?: { stored?: number; max_avail?: number } }[];
    };
    const stats = pools?.find(pool => pool.name === cluster.config.pool)?.stats;
    if (stats?.max_avail === undefined || stats.stored === undefined || stats.max_avail + stats.stored === 0) return null;
    return { total: stats.max_avail + stats.stored, available: stats.max_avail };
  } catch (error) {
    if (error instanceof CisternError && error.code === 'STORE_AUTH') throw error;
    return null;
  }
}
