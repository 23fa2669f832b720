import Table from 'cli-table3';
import { oneLine } from './io.ts';

/** One column of a table of `T`. */
export interface Column<T> {
  title: string;
  value: (row: T) => string;
  align?: 'left' | 'right';
  /** Which columns give way first where the terminal is narrow: the highest number. Default 0: never dropped. */
  yields?: number;
  /** Cut in the middle it is of no use (ids): the column is dropped rather than cut. */
  whole?: boolean;
}

export interface TableStyle {
  /** Columns of the terminal; Infinity where there is none. */
  width: number;
  bold: boolean;
}

const GAP = 2;
const NARROWEST = 8;
const NO_LINES = Object.fromEntries(
  [
    'top',
    'top-mid',
    'top-left',
    'top-right',
    'bottom',
    'bottom-mid',
    'bottom-left',
    'bottom-right',
    'left',
    'left-mid',
    'mid',
    'mid-mid',
    'right',
    'right-mid',
    'middle',
  ].map(name => [name, '']),
);

/** `rows` as an aligned table without lines that fits `style.width`: columns that yield are cut with an ellipsis, then dropped. */
export function formatTable<T>(columns: Column<T>[], rows: T[], style: TableStyle): string {
  const cells = rows.map(row => columns.map(column => oneLine(column.value(row)) || '-'));
  const widths = fit(
    columns.map((column, i) => ({
      width: Math.max(column.title.length, ...cells.map(row => row[i]!.length)),
      least: Math.max(NARROWEST, column.title.length),
      yields: column.yields ?? 0,
      whole: column.whole ?? false,
    })),
    style.width,
  );
  const kept = columns.map((_, i) => i).filter(i => widths[i]! > 0);
  const table = new Table({
    chars: NO_LINES,
    style: { 'padding-left': 0, 'padding-right': GAP, head: [], border: [] },
    head: kept.map(i => (style.bold ? `\u001b[1m${columns[i]!.title}\u001b[22m` : columns[i]!.title)),
    colWidths: kept.map(i => widths[i]! + GAP),
    colAligns: kept.map(i => columns[i]!.align ?? 'left'),
    truncate: '…',
  });
  for (const row of cells) table.push(kept.map(i => row[i]!));
  return table
    .toString()
    .split('\n')
    .map(line => line.trimEnd())
    .join('\n');
}

interface Fit {
  width: number;
  least: number;
  yields: number;
  whole: boolean;
}

/** The width of each column so that their sum fits `total`; 0 for those dropped. */
function fit(columns: Fit[], total: number): number[] {
  const widths = columns.map(column => column.width);
  const needed = (): number => widths.reduce((sum, width) => sum + (width > 0 ? width + GAP : 0), -GAP);
  const order = columns.map((_, i) => i).sort((a, b) => columns[b]!.yields - columns[a]!.yields || b - a);
  for (const i of order) {
    const { width, least, yields, whole } = columns[i]!;
    const over = needed() - total;
    if (over <= 0) break;
    const cut = Math.max(Math.min(width, least), width - over);
    if (whole && yields > 0) widths[i] = 0;
    else if (!whole) widths[i] = cut;
  }
  for (const i of order) {
    if (needed() <= total) break;
    if (columns[i]!.yields > 0) widths[i] = 0;
  }
  return widths;
}

/** Label and value pairs under each other, labels aligned; undefined values are left out. */
export function formatPairs(pairs: [string, string | undefined][]): string {
  const shown = pairs.filter((pair): pair is [string, string] => pair[1] !== undefined);
  const width = Math.max(0, ...shown.map(([label]) => label.length));
  return shown.map(([label, value]) => `${label.padEnd(width)}  ${oneLine(value) || '-'}`.trimEnd()).join('\n');
}
