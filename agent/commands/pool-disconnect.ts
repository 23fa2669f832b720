import type { PoolRef } from '../../shared/commands/refs.ts';
import { CisternError } from '../../shared/errors.ts';
import type { Handler, TaskContext } from './handler.ts';
import { poolDriver } from './pool-driver.ts';

/** Unmounts the pool, also where its storage does not answer; its files stay. With `forget` it stops being a pool first. */
export const disconnectPool: Handler<'pool.disconnect'> = async ({ pool: ref, forget }, ctx) => {
  const { driver, pool } = poolDriver(ref);
  if (forget) await forgetPool(ref, ctx);
  await driver.disconnect?.(pool, { signal: ctx.signal, mountDir: ctx.config.mountDir });
  return {};
};

async function forgetPool(ref: PoolRef, ctx: TaskContext): Promise<void> {
  try {
    await (await ctx.pool(ref)).forget();
  } catch (error) {
    // this pool is not there (any more), nor its folder: the same request came before
    if (!(error instanceof CisternError)) throw error;
    const gone = error.code === 'POOL_UNAVAILABLE' && (error.cause as NodeJS.ErrnoException | undefined)?.code === 'ENOENT';
    if (error.code !== 'POOL_IDENTITY' && !gone) throw error;
  }
}
