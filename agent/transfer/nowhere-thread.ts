/** Takes ranges inside a transfer thread and forgets them. */
import type { Moved, RangeWriter } from './ends.ts';

export interface NowhereData {
  bytesPerSecond: number | null;
}

/** Longest that the thread sleeps at once, in milliseconds: so it sees soon that it is to stop. */
const NAP_MS = 500;

export function openWriter(data: unknown, moved: Moved): RangeWriter {
  const { bytesPerSecond } = data as NowhereData;
  const bell = new Int32Array(new SharedArrayBuffer(4));
  return {
    write(_offset, bytes) {
      const until = performance.now() + (bytesPerSecond === null ? 0 : (bytes.length / bytesPerSecond) * 1000);
      for (let left = until - performance.now(); left > 0; left = until - performance.now())
        Atomics.wait(bell, 0, 0, Math.min(left, NAP_MS));
      moved(bytes.length);
    },
    close: () => undefined,
  };
}
