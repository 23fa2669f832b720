import type { RangeEnd, Sink, ToolLane } from '../transfer/ends.ts';
import { isLimited, type Pace } from '../transfer/pace.ts';
import type { BackupStore } from './driver.ts';

type Ranges = (signal: AbortSignal) => Promise<RangeEnd>;

/** A backup storage whose objects come and go at a pace: by ranges, because a tool knows of none that changes while it runs. */
export function pacedStore(store: BackupStore, pace: Pace): BackupStore {
  const paced = <E extends { ranges?: Ranges; tool?: ToolLane }>(end: E): E => {
    const { ranges, tool, ...rest } = end;
    if (!ranges) return end;
    const way = { ranges: async (signal: AbortSignal) => ({ ...(await ranges(signal)), pace }) };
    return { ...(rest as E), ...way, ...(tool && !isLimited(pace) && { tool }) };
  };
  const pacedCopy = (sink: Sink): Sink => {
    const { copy } = sink;
    return copy ? { ...sink, copy: async (...copied) => paced(await copy(...copied)) } : sink; // it is read back
  };
  return {
    ...store,
    source: async path => paced(await store.source(path)),
    sink: async (path, size, partSize) => pacedCopy(paced(await store.sink(path, size, partSize))),
  };
}
