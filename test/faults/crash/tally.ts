/** The figures of a run of seeds. */
export interface Tally {
  seeds: number;
  kills: number;
  operations: number;
  recovered: number;
  failed: number;
  leaks: number;
  wrong: number;
}

export const newTally = (): Tally => ({ seeds: 0, kills: 0, operations: 0, recovered: 0, failed: 0, leaks: 0, wrong: 0 });

export function addTo(sum: Tally, more: Tally): void {
  for (const key of Object.keys(sum) as (keyof Tally)[]) sum[key] += more[key];
}

const WORDS: [keyof Tally, string][] = [
  ['seeds', 'seeds'],
  ['kills', 'kills'],
  ['operations', 'operations'],
  ['recovered', 'recovered'],
  ['failed', 'cleanly failed'],
  ['leaks', 'leaks'],
  ['wrong', 'wrong bytes'],
];

/** A table of one line. */
export function tableOf(tally: Tally): string {
  const width = (word: string, key: keyof Tally): number => Math.max(word.length, String(tally[key]).length);
  const line = (cell: (word: string, key: keyof Tally) => string): string =>
    `| ${WORDS.map(([key, word]) => cell(word, key)).join(' | ')} |`;
  return [
    line((word, key) => word.padStart(width(word, key))),
    line((word, key) => '-'.repeat(width(word, key))),
    line((word, key) => String(tally[key]).padStart(width(word, key))),
  ].join('\n');
}
