/** Wrong tokens that an address may send within a window before it is told to wait. */
const ALLOWED = 300;
const WINDOW_MS = 10_000;
/** Addresses that are remembered; the oldest goes for a new one, so that a flood of addresses takes no memory. */
const REMEMBERED = 10_000;

/** Counts wrong tokens by the address that they come from. Right ones are never asked about: a flood locks nobody out. */
export interface Strangers {
  /** One more wrong token came from `address`. Returns for how many seconds it should stay away, 0 where it may try on. */
  seen(address: string): number;
}

/** `tell` hears of an address once a window, when it is first told to wait. */
export function createStrangers(tell: (address: string) => void, now: () => number = () => performance.now()): Strangers {
  const known = new Map<string, { since: number; count: number }>();
  return {
    seen(address) {
      const at = now();
      let entry = known.get(address);
      if (!entry || at - entry.since >= WINDOW_MS) {
        known.delete(address);
        if (known.size >= REMEMBERED) known.delete(known.keys().next().value!);
        known.set(address, (entry = { since: at, count: 0 }));
      }
      entry.count++;
      if (entry.count <= ALLOWED) return 0;
      if (entry.count === ALLOWED + 1) tell(address);
      return Math.max(1, Math.ceil((entry.since + WINDOW_MS - at) / 1000));
    },
  };
}
