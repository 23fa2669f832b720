/**
 * Preloaded into services by `--import`: their wall clock is the machine's, shifted by the milliseconds that the file
 * CISTERN_TEST_CLOCK holds at that moment. Timers and the monotonic clock are as they are, as where somebody sets a real clock.
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const file = process.env.CISTERN_TEST_CLOCK;
const RealDate = Date;

if (file !== undefined) {
  const now = (): number => RealDate.now() + Number(readFileSync(file, 'utf8'));
  globalThis.Date = new Proxy(RealDate, {
    construct: (target, args, newTarget) => Reflect.construct(target, args.length === 0 ? [now()] : args, newTarget) as Date,
    apply: () => new RealDate(now()).toString(),
    get: (target, key) => (key === 'now' ? now : (Reflect.get(target, key) as unknown)),
  });
}

/** A clock for services: what their environment needs, and how to set it. */
export function testClock(path: string): { env: Record<string, string>; shift(milliseconds: number): void } {
  const shift = (milliseconds: number): void => {
    writeFileSync(`${path}.next`, String(milliseconds));
    renameSync(`${path}.next`, path);
  };
  shift(0);
  return { env: { CISTERN_TEST_CLOCK: path, NODE_OPTIONS: `--import=${fileURLToPath(import.meta.url)}` }, shift };
}
