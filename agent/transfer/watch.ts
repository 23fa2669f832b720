import { CisternError } from '../../shared/errors.ts';

const TICK_MS = 200;

/** Looks at a byte counter while a transfer runs: reports it, and notices when it stands still. Dispose of it to stop. */
export interface Watch extends Disposable {
  /** Aborted on cancel (with the caller's reason) or when nothing moved for too long (TRANSFER_STALLED). */
  signal: AbortSignal;
}

export function watch(options: {
  name: string;
  moved: () => number;
  stallSeconds: number;
  signal: AbortSignal;
  tick: () => void;
}): Watch {
  const stalled = new AbortController();
  let last = -1;
  let since = performance.now();
  const timer = setInterval(() => {
    const now = options.moved();
    if (now !== last) {
      last = now;
      since = performance.now();
      options.tick();
    } else if (performance.now() - since > options.stallSeconds * 1000) {
      const detail = `moving ${options.name}: no byte moved for ${options.stallSeconds} s, after ${now} bytes`;
      stalled.abort(new CisternError('TRANSFER_STALLED', detail));
    }
  }, TICK_MS);
  return { signal: AbortSignal.any([options.signal, stalled.signal]), [Symbol.dispose]: () => clearInterval(timer) };
}
