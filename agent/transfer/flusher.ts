import type { Sink } from './ends.ts';
import { isPassing } from './retry.ts';

/** Bytes after which what has arrived is sent to the disk: often enough to keep the disk busy, seldom enough to cost nothing. */
const EVERY = 64 * 2 ** 20;

/**
 * Lets a sink bring bytes to its disk while more arrive, so that `publish` has little left to wait for. One flush at a time. `settle`
 * waits for the one that runs; a flush that failed fails there, because the system tells of a lost write only once.
 */
export function flusher(sink: Sink): { tick(done: number): void; settle(): Promise<void> } {
  let last = 0;
  let running: Promise<void> | undefined;
  let failed: { error: unknown } | undefined;
  return {
    tick: done => {
      if (!sink.flush || running || failed || done - last < EVERY) return;
      last = done;
      running = sink
        .flush()
        .catch((error: unknown) => {
          if (!isPassing(error)) failed = { error }; // else `publish` will do it
        })
        .finally(() => (running = undefined));
    },
    settle: async () => {
      await running;
      if (failed) throw failed.error;
    },
  };
}
