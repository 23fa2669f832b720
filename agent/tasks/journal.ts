import { appendFileSync, closeSync, existsSync, openSync, readFileSync, renameSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { CisternError, Problem } from '../../shared/errors.ts';
import type { Logger } from '../../shared/log.ts';
import { TaskState } from '../../shared/task.ts';

/** What is kept of a task. The command itself is not: it holds secrets; its fingerprint tells whether an id comes again with another command. */
export const TaskRecord = z.object({
  id: z.uuid(),
  kind: z.string(),
  fingerprint: z.string(),
  poolId: z.string().nullable(),
  state: TaskState,
  output: z.unknown().optional(),
  error: Problem.nullable(),
  createdAt: z.string(),
  finishedAt: z.string().nullable(),
  /** The controller has taken the final report. */
  acked: z.boolean(),
  /** Its process died under it: what it left in its pool is removed when the pool is opened next. */
  unswept: z.boolean(),
});
export type TaskRecord = z.infer<typeof TaskRecord>;

const Line = z.union([
  TaskRecord,
  z.strictObject({ epoch: z.int() }),
  z.strictObject({ acked: z.array(z.string()) }),
  z.strictObject({ swept: z.array(z.string()) }),
]);
type Line = z.infer<typeof Line>;

export interface Journal {
  /** What was found at the start, oldest first. */
  records: TaskRecord[];
  /** Number of this run of the agent: its start in Unix milliseconds, and above that of every run before, whatever the clock did. */
  epoch: number;
  /** Writes a line; returns its length in bytes. IO_ERROR where the disk refuses. */
  write(line: Line): number;
  /** Rewrites the file with what is still kept, once it holds far more lines than that. */
  compactIfGrown(live: () => Iterable<TaskRecord>, count: number): void;
  close(): void;
}

const SLACK_LINES = 10_000;

/**
 * The tasks of this agent as JSON lines in `STATE_DIR/tasks.jsonl`. Lines are written before a task is acknowledged, but not
 * synced to the disk: after the agent's own death the kernel still has them, and after a power cut the controller sends the task
 * again and handlers can be repeated, so an fsync (milliseconds) for each task would buy nothing.
 * Lines that cannot be read are set aside in `tasks.jsonl.corrupt` and logged; the rest is used.
 */
export function openJournal(stateDir: string, log: Logger, now = Date.now()): Journal {
  const file = join(stateDir, 'tasks.jsonl');
  const found = load(file, log);
  const epoch = Math.max(now, found.epoch + 1);
  let fd = rewrite(file, epoch, found.records);
  let lines = found.records.length + 1;
  let torn = false;
  return {
    records: found.records,
    epoch,
    write(line) {
      const bytes = Buffer.from(`${torn ? '\n' : ''}${JSON.stringify(line)}\n`);
      try {
        const written = writeSync(fd, bytes);
        torn = written < bytes.length;
        if (torn) throw new Error(`only ${written} of ${bytes.length} bytes were taken`);
      } catch (cause) {
        throw new CisternError('IO_ERROR', `writing the task journal ${file}: ${(cause as Error).message}`, { cause });
      }
      lines++;
      return bytes.length;
    },
    compactIfGrown(live, count) {
      if (lines < 2 * count + SLACK_LINES) return;
      const next = rewrite(file, epoch, live());
      closeSync(fd);
      fd = next;
      lines = count + 1;
      torn = false;
    },
    close: () => closeSync(fd),
  };
}

function load(file: string, log: Logger): { records: TaskRecord[]; epoch: number } {
  const records = new Map<string, TaskRecord>();
  let epoch = 0;
  const bad: string[] = [];
  for (const text of readLines(file, log)) {
    const line = parse(text);
    if (!line) bad.push(text);
    else if ('id' in line) records.set(line.id, line);
    else if ('epoch' in line) epoch = Math.max(epoch, line.epoch);
    else if ('acked' in line) mark(records, line.acked, { acked: true });
    else mark(records, line.swept, { unswept: false });
  }
  if (bad.length > 0) {
    const aside = `${file}.corrupt`;
    writeFileSync(aside, '', { mode: 0o600 });
    appendFileSync(aside, `${bad.join('\n')}\n`);
    log.warn({ lines: bad.length, aside }, 'the task journal has lines that cannot be read; they were set aside');
  }
  return { records: [...records.values()], epoch };
}

function mark(records: Map<string, TaskRecord>, ids: string[], change: Partial<TaskRecord>): void {
  for (const id of ids) {
    const record = records.get(id);
    if (record) Object.assign(record, change);
  }
}

function parse(text: string): Line | undefined {
  try {
    const parsed = Line.safeParse(JSON.parse(text));
    return parsed.success ? parsed.data : undefined;
  } catch {
    return undefined;
  }
}

/** A file that cannot be read at all (a folder, a bad disk) is moved out of the way as a whole. */
function readLines(file: string, log: Logger): string[] {
  if (!existsSync(file)) return [];
  try {
    return readFileSync(file, 'utf8')
      .split('\n')
      .filter(text => text !== '');
  } catch (error) {
    const aside = `${file}.unreadable-${Date.now()}`;
    renameSync(file, aside);
    log.warn({ aside, reason: (error as Error).message }, 'the task journal cannot be read; it was set aside');
    return [];
  }
}

/** A fresh file under the journal's name, whole or not at all; returns it open for appending. */
function rewrite(file: string, epoch: number, records: Iterable<TaskRecord>): number {
  const next = `${file}.new`;
  const text = [JSON.stringify({ epoch })];
  for (const record of records) text.push(JSON.stringify(TaskRecord.parse(record)));
  writeFileSync(next, `${text.join('\n')}\n`, { mode: 0o600 });
  const fd = openSync(next, 'a', 0o600);
  renameSync(next, file);
  return fd;
}
