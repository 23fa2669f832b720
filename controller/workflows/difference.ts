/**
 * What a scan tells: `orphan` lies there without a row, `missing` has a row and does not lie there, `different` is not what its row says, and
 * `damaged` is wrong in itself. `adopted` was an orphan until this scan; of what is `repaired` the row said something else.
 */
export interface Difference {
  what: 'orphan' | 'missing' | 'different' | 'damaged' | 'adopted' | 'repaired';
  kind: 'volume' | 'volume in the trash' | 'cached image' | 'image';
  id: string;
  name?: string;
  hostId?: string;
  size?: number | null;
  createdAt?: string | null;
  /** Why it is so, where that is not plain. */
  note?: string;
}

/** What operations are about to make or to remove is no difference. */
export const SETTLED = ['ready', 'deleted', 'missing'];

export function countsOf(all: Difference[]): { orphans: number; missing: number } {
  const count = (what: Difference['what']): number => all.filter(one => one.what === what).length;
  return { orphans: count('orphan'), missing: count('missing') };
}
