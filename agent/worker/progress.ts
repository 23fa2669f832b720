import type { Progress } from '../../shared/task.ts';

type Unit = Progress['unit'];

/** Seconds over which the rate is smoothed. */
const SMOOTH_SECONDS = 3;

/**
 * Takes progress as often as it comes and emits the latest every `intervalMs`, with rate and ETA. The first one waits for an
 * interval as well: a task that is over before says nothing, which keeps short tasks cheap.
 */
export function createMeter(emit: (progress: Progress) => void, intervalMs = 250) {
  let latest: { stage: string; done: number; total: number | null; unit: Unit } | undefined;
  let timer: NodeJS.Timeout | undefined;
  let last = { stage: '', done: 0, at: performance.now() };
  let rate: number | null = null;

  function flush(): void {
    timer = undefined;
    if (!latest) return;
    const now = performance.now();
    const { stage, done, total, unit } = latest;
    // another stage counts other things, and a retry starts anew
    if (stage !== last.stage || done < last.done) rate = null;
    else rate = smooth(rate, done - last.done, (now - last.at) / 1000);
    last = { stage, done, at: now };
    const eta = rate !== null && rate > 0 && total !== null ? Math.max(0, total - done) / rate : null;
    latest = undefined;
    emit({ stage, done, total, unit, rate, eta });
  }

  return {
    report(stage: string, done: number, total: number | null, unit: Unit = 'bytes'): void {
      latest = { stage, done, total, unit };
      timer ??= setTimeout(flush, intervalMs);
    },
    stop: (): void => clearTimeout(timer),
  };
}

/** Exponentially weighted mean that does not depend on how often it is called. */
export function smooth(rate: number | null, amount: number, seconds: number): number | null {
  if (seconds <= 0) return rate;
  const now = amount / seconds;
  return rate === null ? now : rate + (now - rate) * (1 - Math.exp(-seconds / SMOOTH_SECONDS));
}
