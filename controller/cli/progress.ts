import { SingleBar } from 'cli-progress';
import type { Operation } from '../../shared/model.ts';
import type { Progress } from '../../shared/task.ts';
import { type Io, oneLine } from './io.ts';
import { formatBytes, formatSpan } from './units.ts';

/** Shows how an operation goes on: a bar on a terminal, else a line at each new stage. Always on standard error. */
export interface ProgressView {
  update(progress: Progress): void;
  /** Takes the bar away, so that something else can be said; the next update brings it back. */
  pause(): void;
}

const BAR = 24;

/** How far an operation is; where its task reports nothing, the step that runs. */
export function progressOf(operation: Operation): Progress {
  if (operation.progress && operation.state === 'running') return operation.progress;
  const step = operation.steps.findLast(s => s.state === 'running')?.name;
  const stage = operation.state === 'running' ? (step ?? 'running') : operation.state;
  return { stage, done: 0, total: null, unit: 'items', rate: null, eta: null };
}

/** A view for `title` on standard error; `Symbol.dispose` takes the bar away. */
export function createProgress(io: Io, title: string): ProgressView & Disposable {
  return io.stderr.isTTY ? barView(io, title) : lineView(io, title);
}

function barView(io: Io, title: string): ProgressView & Disposable {
  const began = performance.now();
  let latest: Progress | undefined;
  // a terminal that does not know its size says 0 columns
  const line = (): string =>
    latest ? progressLine(title, latest, (performance.now() - began) / 1000, (io.stderr.columns || 80) - 1) : '';
  const bar = new SingleBar({
    stream: io.stderr,
    format: line,
    clearOnComplete: true,
    hideCursor: null,
    linewrap: null,
    gracefulExit: false,
    fps: 8,
  });
  const pause = (): void => bar.stop();
  return {
    update: progress => {
      latest = progress;
      if (!bar.isActive) bar.start(1, 0);
    },
    pause,
    [Symbol.dispose]: pause,
  };
}

function lineView(io: Io, title: string): ProgressView & Disposable {
  let stage = '';
  return {
    update: progress => {
      if (progress.stage === stage) return;
      stage = progress.stage;
      const total = progress.total ? ` (${amount(progress.total, progress.unit)})` : '';
      io.stderr.write(`${oneLine(`${title}: ${stage}${total}`)}\n`);
    },
    pause: () => undefined,
    [Symbol.dispose]: () => undefined,
  };
}

/** The one line of the bar, cut to `width` columns. */
export function progressLine(title: string, progress: Progress, elapsed: number, width: number): string {
  const { done, total, unit, rate, eta } = progress;
  const share = total ? Math.min(1, done / total) : undefined;
  const filled = Math.floor((share ?? 0) * BAR);
  const parts = [
    `${title}  ${oneLine(progress.stage)}`,
    share === undefined
      ? undefined
      : `[${'#'.repeat(filled)}${'-'.repeat(BAR - filled)}] ${String(Math.floor(share * 100)).padStart(3)}%`,
    unit === 'percent' || (total === null && done === 0)
      ? undefined
      : total === null
        ? amount(done, unit)
        : `${amount(done, unit)} / ${amount(total, unit)}`,
    rate === null || unit === 'percent' ? undefined : `${amount(rate, unit)}/s`,
    eta === null ? formatSpan(elapsed) : `ETA ${formatSpan(eta)}`,
  ];
  const line = parts.filter(part => part !== undefined).join('  ');
  return line.length > width ? `${line.slice(0, Math.max(0, width - 1))}…` : line;
}

const amount = (value: number, unit: Progress['unit']): string =>
  unit === 'bytes' ? formatBytes(value) : unit === 'percent' ? `${Math.round(value)}%` : String(Math.round(value));
