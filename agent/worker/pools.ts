import { createHash } from 'node:crypto';
import type { PoolRef } from '../../shared/commands/refs.ts';
import type { Pool, PrimaryDriver } from '../primary/driver.ts';
import { orAborted } from './or-aborted.ts';

interface Opening {
  config: string;
  pool: Promise<Pool>;
  abort: AbortController;
  waiting: number;
  open: boolean;
}

export interface PoolsOptions {
  /** Below it drivers mount. */
  mountDir: string;
  /** The driver of a pool, and the pool with its configuration checked. */
  find(ref: PoolRef): Promise<{ driver: PrimaryDriver; pool: { id: string; config: unknown } }>;
  /** Called with a pool that was just opened, before any task gets it. */
  opened(pool: Pool, id: string): Promise<void>;
}

/**
 * The pools that this worker has open, by id and configuration. However many tasks ask at once, a pool is opened once; the
 * opening is given up when the last task that waits for it is cancelled. A failed opening is not kept.
 */
export function createPools({ mountDir, find, opened }: PoolsOptions) {
  const openings = new Map<string, Opening>();

  async function connect(ref: PoolRef, signal: AbortSignal): Promise<Pool> {
    const { driver, pool: checked } = await find(ref);
    const pool = await driver.connect(checked, { initialize: false, signal, mountDir });
    await opened(pool, ref.id);
    return pool;
  }

  function start(ref: PoolRef, config: string): Opening {
    const abort = new AbortController();
    const opening: Opening = { config, abort, waiting: 0, open: false, pool: connect(ref, abort.signal) };
    openings.set(ref.id, opening);
    opening.pool.then(
      () => (opening.open = true),
      () => drop(ref.id, opening),
    );
    return opening;
  }

  const drop = (id: string, opening: Opening): void => {
    if (openings.get(id) === opening) openings.delete(id);
  };

  return {
    async get(ref: PoolRef, signal: AbortSignal): Promise<Pool> {
      signal.throwIfAborted();
      const config = hash(ref);
      const known = openings.get(ref.id);
      const opening = known?.config === config ? known : start(ref, config);
      if (opening.open) return opening.pool;
      opening.waiting++;
      try {
        return await orAborted(opening.pool, signal);
      } finally {
        if (--opening.waiting === 0 && !opening.open) {
          drop(ref.id, opening);
          opening.abort.abort();
        }
      }
    },
    /** The next task opens the pool anew: it was connected or disconnected, or showed an error that may be the mount's. */
    forget: (id: string): void => void openings.delete(id),
  };
}

const hash = (ref: PoolRef): string =>
  createHash('sha256')
    .update(JSON.stringify([ref.type, ref.config]))
    .digest('hex');
