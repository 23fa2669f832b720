/** Runs at most `max` functions at once; the rest waits in line, and leaves it when its signal aborts. */
export function createLimiter(max: number) {
  let running = 0;
  const line = new Set<() => void>();

  const enter = (signal: AbortSignal): Promise<void> => {
    signal.throwIfAborted();
    if (running < max) {
      running++;
      return Promise.resolve();
    }
    return new Promise((resolve, reject) => {
      const leave = () => {
        line.delete(go);
        reject(signal.reason as Error);
      };
      const go = () => {
        signal.removeEventListener('abort', leave);
        resolve();
      };
      signal.addEventListener('abort', leave, { once: true });
      line.add(go);
    });
  };

  /** The place goes straight to the next in line, so `running` stays. */
  const exit = (): void => {
    const [next] = line;
    if (!next) return void running--;
    line.delete(next);
    next();
  };

  return async <T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> => {
    await enter(signal);
    try {
      return await work();
    } finally {
      exit();
    }
  };
}
