import type { Handler } from './handler.ts';
import { poolDriver } from './pool-driver.ts';

/** Makes the pool usable on this host and tells its capacity; with `initialize`, an empty place becomes the pool. */
export const connectPool: Handler<'pool.connect'> = async ({ pool: ref, initialize }, { config, signal }) => {
  const { driver, pool } = poolDriver(ref);
  const open = await driver.connect(pool, { initialize, signal, mountDir: config.mountDir });
  return { capacity: await open.capacity(), initialized: open.initialized };
};
