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

/**
 * The width of each column so that their sum fits `total`; 0 for those dropped. Those that yield are cut (or dropped, where a part is
 * of no use), the first to yield first; where that is not enough, one after the other is dropped; at last the others are cut.
 */
function fit(columns: Fit[], total: number): number[] {
  const needed = (widths: number[]): number => widths.reduce((sum, width) => sum + (width > 0 ? width + GAP : 0), -GAP);
  const order = columns.map((_, i) => i).sort((a, b) => columns[b]!.yields - columns[a]!.yields || b - a);
  const yielding = order.filter(i => columns[i]!.yields > 0);
  const cut = (widths: number[], which: number[]): number[] => {
    for (const i of which) {
      const over = needed(widths) - total;
      const { whole, least, yields } = columns[i]!;
      if (over <= 0 || widths[i] === 0) continue;
      if (whole && yields > 0) widths[i] = 0;
      else if (!whole) widths[i] = Math.max(Math.min(widths[i]!, least), widths[i]! - over);
    }
    return widths;
  };
  for (let dropped = 0; dropped <= yielding.length; dropped += 1) {
    const widths = cut(
      columns.map((column, i) => (yielding.slice(0, dropped).includes(i) ? 0 : column.width)),
      yielding,
    );
    if (needed(widths) <= total) return widths;
  }
  return cut(
    columns.map(column => (column.yields > 0 ? 0 : column.width)),
    order,
  );
}

/** Label and value pairs under each other, labels aligned; undefined values are left out. */
export function formatPairs(pairs: [string, string | undefined][]): string {
  const shown = pairs.filter((pair): pair is [string, string] => pair[1] !== undefined);
  const width = Math.max(0, ...shown.map(([label]) => label.length));
  return shown.map(([label, value]) => `${label.padEnd(width)}  ${oneLine(value) || '-'}`.trimEnd()).join('\n');
}
