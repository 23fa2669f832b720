import type { Handler } from './handler.ts';

/** Proves that the backup storage can be read and written, and tells its capacity where it knows one. */
export const connectStore: Handler<'store.connect'> = async ({ store: ref }, ctx) => {
  const store = await ctx.store(ref);
  await store.check();
  return { capacity: (await store.capacity?.()) ?? null };
};
