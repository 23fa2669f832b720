/** One line of a benchmark: what was measured, beside a named tool that did the same in the same run. */
export interface Row {
  /** What is done, such as `download, dense`. */
  case: string;
  /** Unit of `ours` and `peer`, such as `MiB/s` or `ms`. */
  unit: string;
  ours: number;
  /** The tool that stands beside, with what tells its run apart: `scp + sha256sum`. */
  tool: string;
  /** The tool's figure, in the same unit. */
  peer: number;
  /** Above 1 where we are better: see `ratioOf`. */
  ratio: number;
  /** The ratio, or the limit, that was asked for, such as `>= 1.1`; empty where nothing was. */
  reach: string;
}

/** A benchmark: `test/bench/NAME.ts` exports one as `bench`. */
export type Bench = () => Promise<Row[]>;

/** The middle of `values`; of an even count the mean of the two in the middle. */
export const medianOf = (values: readonly number[]): number => quantileOf(values, 0.5);

/** The value below which the share `q` (0 to 1) of `values` lies, interpolated. */
export function quantileOf(values: readonly number[], q: number): number {
  if (values.length === 0) throw new RangeError('no values');
  const sorted = values.toSorted((a, b) => a - b);
  const at = (sorted.length - 1) * q;
  const below = sorted[Math.floor(at)]!;
  const above = sorted[Math.ceil(at)]!;
  return below + (above - below) * (at - Math.floor(at));
}

/** How many times better ours is: where more is better (rates) ours / peer, where less is better (times, sizes) peer / ours. */
export const ratioOf = (ours: number, peer: number, better: 'more' | 'less'): number =>
  better === 'more' ? ours / peer : peer / ours;

/**
 * Runs every one of `runs` `rounds` times, in turns (a b c, then c b a, ...), so that what changes on the machine over time meets
 * all alike. Returns each one's figures in the order of the rounds. `what` has each
 * figure told on stderr as it comes, for runs that take long.
 */
export async function interleave<K extends string>(
  runs: Record<K, () => Promise<number>>,
  rounds: number,
  what?: string,
): Promise<Record<K, number[]>> {
  const names = Object.keys(runs) as K[];
  const figures = Object.fromEntries(names.map(name => [name, [] as number[]])) as Record<K, number[]>;
  for (let round = 0; round < rounds; round++) {
    for (const name of round % 2 === 0 ? names : names.toReversed()) {
      const figure = await runs[name]();
      figures[name].push(figure);
      if (what !== undefined) console.error(`${what}, round ${round + 1} of ${rounds}: ${name} ${figure.toPrecision(3)}`);
    }
  }
  return figures;
}
