import { existsSync, readFileSync, statSync } from 'node:fs';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { z } from 'zod';
import { Problem } from '../../shared/errors.ts';
import { Id } from '../../shared/id.ts';
import type { Logger } from '../../shared/log.ts';
import { TaskState } from '../../shared/task.ts';
import { spoolError } from '../host/spool-error.ts';
import { checkedLine, readChecked } from './checked-line.ts';
import { setAside } from './set-aside.ts';

/** What is kept of a task. The command itself is not: it holds secrets; its fingerprint tells whether an id comes again with another command. */
export const TaskRecord = z.object({
  id: Id,
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
  /** Puts a line in the queue; tells its length in bytes, and when it is in the file. NO_CAPACITY where the disk is full, IO_ERROR where it refuses. */
  write(line: Line): { bytes: number; written: Promise<void> };
  /** Says what is still kept: the file is rewritten from it when it holds far more lines than that. */
  compactFrom(live: () => Iterable<TaskRecord>, count: () => number): void;
  /** Writes what is queued, then closes the file. */
  close(): Promise<void>;
}

const SLACK_LINES = 10_000;
/** Bytes; the registry keeps 32 MiB of ended tasks, so a journal beyond this is none of ours. */
const LARGEST = 256 * 2 ** 20;

/**
 * The tasks of this agent as lines of JSON in `STATE_DIR/tasks.jsonl`. A task's line is written before the task is acknowledged, but not
 * synced to the disk: after the agent's own death the kernel still has it, and after a power cut the controller sends the task
 * again and handlers can be repeated, so an fsync (milliseconds) for each task would buy nothing. Lines are written off the event
 * loop, all that gathered at once: while a worker syncs files on the same disk, even a plain write was seen to take 0.4 ms.
 * Each line has a checksum. Those that are damaged are set aside in `tasks.jsonl.damaged-TIME` and logged; the rest is used.
 */
export async function openJournal(stateDir: string, log: Logger, now = Date.now()): Promise<Journal> {
  const path = join(stateDir, 'tasks.jsonl');
  const found = load(path, log);
  const epoch = Math.max(now, found.epoch + 1);
  let torn = false;
  let file = await rewrite(path, epoch, found.records).catch(async (error: unknown) => {
    log.error({ err: error }, 'the task journal cannot be rewritten; no task is taken before it can be written');
    torn = true; // the old one may end in half a line
    return open(path, 'a', 0o600);
  });
  let lines = found.records.length + 1;
  let kept: { live: () => Iterable<TaskRecord>; count: () => number } | undefined;
  let queue: { text: string; settle: PromiseWithResolvers<void> }[] = [];
  let flushing: Promise<void> | undefined;

  async function flush(): Promise<void> {
    await setImmediate();
    while (queue.length > 0) {
      const batch = queue;
      queue = [];
      try {
        if (kept && lines > 2 * kept.count() + SLACK_LINES) await compact(kept.live, kept.count);
        await file.appendFile(`${torn ? '\n' : ''}${batch.map(entry => entry.text).join('')}`);
        torn = false;
        lines += batch.length;
        for (const entry of batch) entry.settle.resolve();
      } catch (cause) {
        torn = true;
        const error = spoolError(cause, `writing the task journal ${path}`);
        for (const entry of batch) entry.settle.reject(error);
      }
    }
    flushing = undefined;
  }

  async function compact(live: () => Iterable<TaskRecord>, count: () => number): Promise<void> {
    const next = await rewrite(path, epoch, live());
    await file.close();
    file = next;
    lines = count() + 1;
    torn = false;
  }

  return {
    records: found.records,
    epoch,
    write(line) {
      const text = checkedLine(line);
      const settle = Promise.withResolvers<void>();
      queue.push({ text, settle });
      flushing ??= flush();
      return { bytes: text.length, written: settle.promise };
    },
    compactFrom: (live, count) => void (kept = { live, count }),
    async close() {
      await flushing;
      await file.close();
    },
  };
}

function load(file: string, log: Logger): { records: TaskRecord[]; epoch: number } {
  const records = new Map<string, TaskRecord>();
  let epoch = 0;
  const bad: Buffer[] = [];
  for (const text of readLines(file, log)) {
    const parsed = Line.safeParse(readChecked(text));
    const line = parsed.data;
    if (!line) bad.push(text, NEWLINE);
    else if ('id' in line) records.set(line.id, line);
    else if ('epoch' in line) epoch = Math.max(epoch, line.epoch);
    else if ('acked' in line) mark(records, line.acked, { acked: true });
    else mark(records, line.swept, { unswept: false });
  }
  if (bad.length > 0) setAside(file, `what is damaged of the task journal (${bad.length / 2} lines)`, log, Buffer.concat(bad));
  return { records: [...records.values()], epoch };
}

function mark(records: Map<string, TaskRecord>, ids: string[], change: Partial<TaskRecord>): void {
  for (const id of ids) {
    const record = records.get(id);
    if (record) Object.assign(record, change);
  }
}

const NEWLINE = Buffer.from('\n');

/** The lines, as bytes. A file that cannot be read at all (a folder, a bad disk, far too long) is moved out of the way as a whole. */
function readLines(file: string, log: Logger): Buffer[] {
  if (!existsSync(file)) return [];
  const lines: Buffer[] = [];
  try {
    const { size } = statSync(file);
    if (size > LARGEST) throw new Error(`it has ${size} bytes`);
    const all = readFileSync(file);
    for (let at = 0, end: number; at < all.length; at = end + 1) {
      end = all.indexOf(NEWLINE, at);
      if (end < 0) end = all.length;
      if (end > at) lines.push(all.subarray(at, end));
    }
  } catch (error) {
    setAside(file, `the task journal, which cannot be read (${(error as Error).message}),`, log);
  }
  return lines;
}

/** A fresh file under the journal's name, whole or not at all; returns it open for appending. */
async function rewrite(path: string, epoch: number, records: Iterable<TaskRecord>): Promise<FileHandle> {
  const next = `${path}.new`;
  let text = checkedLine({ epoch });
  for (const record of records) text += checkedLine(TaskRecord.parse(record));
  await rm(next, { force: true });
  const file = await open(next, 'a', 0o600);
  try {
    await file.appendFile(text);
    await file.sync();
    await rename(next, path);
    return file;
  } catch (error) {
    await file.close();
    await rm(next, { force: true });
    throw error;
  }
}
