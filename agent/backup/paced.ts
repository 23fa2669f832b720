import type { RangeEnd } from '../transfer/ends.ts';
import type { Pace } from '../transfer/pace.ts';
import type { BackupStore } from './driver.ts';

type Ranges = (signal: AbortSignal) => Promise<RangeEnd>;

/** A backup storage whose objects come and go at a pace, wherever they are moved by ranges. */
export function pacedStore(store: BackupStore, pace: Pace): BackupStore {
  const paced = <E extends { ranges?: Ranges }>(end: E): E => {
    const { ranges } = end;
    if (!ranges) return end;
    return { ...end, ranges: async (signal: AbortSignal) => ({ ...(await ranges(signal)), pace }) };
  };
  return {
    ...store,
    source: async path => paced(await store.source(path)),
    sink: async (path, size, partSize) => paced(await store.sink(path, size, partSize)),
  };
}
