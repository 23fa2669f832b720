/** Where bytes go that are only to be read and checked. */
import type { Sink } from './ends.ts';
import type { NowhereData } from './nowhere-thread.ts';

/** A sink that keeps nothing. With `bytesPerSecond` each stream is held down to that, to leave the storage to others. */
export function nowhere(bytesPerSecond: number | null = null): Sink {
  const data: NowhereData = { bytesPerSecond };
  const module = new URL('./nowhere-thread.ts', import.meta.url).href;
  const done = (): Promise<void> => Promise.resolve();
  return { name: 'nowhere', ranges: () => Promise.resolve({ module, data, release: done }), publish: done, abort: done };
}
