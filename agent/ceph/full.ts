import { CisternError } from '../../shared/errors.ts';

/** A write to a full pool, or to one whose quota is used up, is held until there is room: all that comes back is a time-out. */
const HELD = /timed out|no answer within|error 5\b/i;

/** STORE_FULL in the place of a time-out where the pool is full as `dump` tells it (`ceph osd dump`); other errors stay as they are. */
export async function fullOr<E>(error: E, pool: string, dump: () => Promise<string>): Promise<E | CisternError> {
  if (!(error instanceof CisternError) || !['STORE_UNREACHABLE', 'STORE_IO_ERROR'].includes(error.code)) return error;
  if (!HELD.test(error.message) || /authenticate|connect|mon config/.test(error.message)) return error;
  try {
    const map = JSON.parse(await dump()) as { flags?: string; pools?: { pool_name?: string; flags_names?: string }[] };
    const flags = [map.flags, map.pools?.find(one => one.pool_name === pool)?.flags_names].join().split(',');
    if (!flags.some(flag => flag.startsWith('full'))) return error;
  } catch {
    return error; // the first failure is what counts
  }
  return new CisternError('STORE_FULL', `${error.message}; the pool ${pool} is full`, { cause: error });
}
