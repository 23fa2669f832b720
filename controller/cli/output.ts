import { toProblem } from '../../shared/errors.ts';
import type { Problem } from '../../shared/errors.ts';
import { hasColour, type Io, oneLine, plainText } from './io.ts';
import { type Column, formatPairs, formatTable } from './table.ts';

/** Where results go: tables for people or JSON for programs on standard output, remarks on standard error. */
export interface Output {
  json: boolean;
  /** A list: the array itself, or a table with a remark where it is empty. */
  list<T>(columns: Column<T>[], rows: T[]): void;
  /** One thing: the object itself, or its fields under each other; `more` are tables or lines below. */
  show(object: unknown, pairs: [string, string | undefined][], more?: string[]): void;
  /** A line for people only, on standard error. */
  note(text: string): void;
  /** A line for people (standard output), or an object for programs. */
  say(text: string, object: unknown): void;
  table<T>(columns: Column<T>[], rows: T[]): string;
}

/** Output in one of the two forms of `--output`. */
export function createOutput(io: Io, json: boolean): Output {
  // a terminal that does not know its size says 0 columns
  const style = { width: io.stdout.isTTY ? io.stdout.columns || 80 : Infinity, bold: hasColour(io.stdout, io.env) };
  const print = (text: string): void => void io.stdout.write(`${text}\n`);
  const dump = (value: unknown): void => print(JSON.stringify(value, null, 2));
  const note = (text: string): void => void io.stderr.write(`${plainText(text)}\n`);
  const table = <T>(columns: Column<T>[], rows: T[]): string => formatTable(columns, rows, style);
  return {
    json,
    list: (columns, rows) => {
      if (json) dump(rows);
      else if (rows.length === 0) note('none');
      else print(table(columns, rows));
    },
    show: (object, pairs, more = []) => {
      if (json) dump(object);
      else print([formatPairs(pairs), ...more.filter(text => text !== '')].join('\n\n'));
    },
    note,
    say: (text, object) => (json ? dump(object) : print(plainText(text))),
    table,
  };
}

/** An error for people: what kind, what was tried and came back, what to do. */
export function formatProblem(problem: Problem): string {
  const lines = [
    `cistern: ${oneLine(problem.title)} (${oneLine(problem.code)})`,
    plainText(problem.detail),
    `What to do: ${oneLine(problem.action)}`,
  ];
  return lines.filter(line => line !== '').join('\n');
}

/** The exit code for a thrown error: 2 for wrong usage, 130 for cancelled, else 1. */
export function exitCodeOf(error: unknown): number {
  const { code } = toProblem(error);
  if (code === 'BAD_REQUEST') return 2;
  return code === 'CANCELLED' ? 130 : 1;
}

/** Prints `error` on standard error; what nobody expected with the place it came from. */
export function printError(io: Io, error: unknown): void {
  const problem = toProblem(error);
  io.stderr.write(`${formatProblem(problem)}\n`);
  if (problem.code === 'INTERNAL' && io.env.CISTERN_DEBUG && error instanceof Error) io.stderr.write(`${error.stack}\n`);
}
