import { runConformance } from '../backup/conformance/run.ts';
import type { Handler } from './handler.ts';

/** Runs the conformance suite against the backup storage, in folders of its own that are gone afterwards. */
export const validateStore: Handler<'store.validate'> = async ({ store: ref }, ctx) => {
  const store = await ctx.store(ref);
  const progress = (done: number, total: number): void => ctx.progress('validate', done, total, 'items');
  return { cases: await runConformance(store, await ctx.spool(), ctx.signal, progress) };
};
