/** Holds bytes down to a rate: a bucket that every thread of a transfer draws from, and whose rate may change meanwhile. */
export interface Pace {
  /** Shared: bytes per second, 0 for as fast as it goes; and the time, in microseconds, until which bytes are spoken for. */
  cells: BigInt64Array;
}

/** Longest sleep at once, in milliseconds: so it is seen soon that the rate changed or that the transfer stops. */
const NAP_MS = 200;
/** Microseconds that a bucket which was not drawn from may be ahead. */
const BURST = 100_000n;

export const makePace = (bytesPerSecond: number | null): Pace => {
  const cells = new BigInt64Array(new SharedArrayBuffer(16));
  cells[0] = BigInt(bytesPerSecond ?? 0);
  return { cells };
};

/** Changes the rate of what moves now and later. */
export const setPace = ({ cells }: Pace, bytesPerSecond: number | null): void =>
  void Atomics.store(cells, 0, BigInt(bytesPerSecond ?? 0));

export const isLimited = ({ cells }: Pace): boolean => Atomics.load(cells, 0) !== 0n;

const bell = new Int32Array(new SharedArrayBuffer(4));
/** The same in every thread of a process. */
const now = (): bigint => process.hrtime.bigint() / 1000n;

/** Sleeps, blocking this thread, until `bytes` more may have moved, or `stopped` says that they need not. */
export function draw({ cells }: Pace, bytes: number, stopped: () => boolean): void {
  const rate = Atomics.load(cells, 0);
  if (rate === 0n) return;
  let due: bigint;
  for (;;) {
    const spoken = Atomics.load(cells, 1);
    const earliest = now() - BURST;
    due = (spoken > earliest ? spoken : earliest) + (BigInt(bytes) * 1_000_000n) / rate;
    if (Atomics.compareExchange(cells, 1, spoken, due) === spoken) break;
  }
  for (let left = due - now(); left > 0n && !stopped() && Atomics.load(cells, 0) === rate; left = due - now())
    Atomics.wait(bell, 0, 0, Math.min(Number(left) / 1000, NAP_MS));
  // another rate: what was spoken for at the old one no longer binds
  if (Atomics.load(cells, 0) !== rate) Atomics.store(cells, 1, now());
}
