import cron from 'node-cron';

/** Seconds that are made up for where this process was held up; what lies further back is left out. */
const MAKE_UP = 60;

/**
 * Calls `due` for each of `names` whose cron expression fits the wall clock, once a second at most; returns how to stop. Only the
 * matching is node-cron's: its own timers wait for the slot that they saw last, for years where the clock went back, and go
 * through every slot in between where it went ahead (version 4.6). Here a clock that jumped means only that slots are left out or
 * come again.
 */
export function everySecond<K extends string>(
  expressions: Record<K, string>,
  names: readonly K[],
  due: (name: K) => void,
): () => void {
  const matchers = names.map(name => ({ name, task: cron.createTask(expressions[name], () => {}) }));
  const now = (): number => Math.floor(Date.now() / 1000);
  let last = now();
  const tick = (): void => {
    const second = now();
    const gone = second - last;
    const from = gone > 0 && gone <= MAKE_UP ? last + 1 : second;
    if (gone !== 0)
      for (const { name, task } of matchers) {
        for (let at = from; at <= second; at++) {
          if (!task.match(new Date(at * 1000))) continue;
          due(name);
          break;
        }
      }
    last = second;
    timer = setTimeout(tick, 1000 - (Date.now() % 1000));
  };
  let timer = setTimeout(tick, 1000 - (Date.now() % 1000));
  return () => {
    clearTimeout(timer);
    for (const { task } of matchers) void task.destroy();
  };
}
