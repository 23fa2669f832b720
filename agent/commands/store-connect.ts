import type { Handler } from './handler.ts';
import { samePlace } from './same-place.ts';

/** Proves that the backup storage can be read and written, and tells its capacity where it knows one. */
export const connectStore: Handler<'store.connect'> = async ({ store: ref, others = [] }, ctx) => {
  const store = await ctx.store(ref);
  await store.check();
  const sameAs = await samePlace(store, ref.id, others, ctx);
  return { capacity: (await store.capacity?.()) ?? null, sameAs };
};
