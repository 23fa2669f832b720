import { createHash } from 'node:crypto';
import { open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import type { CommandMessage } from '../../shared/commands/index.ts';
import { CisternError } from '../../shared/errors.ts';
import type { Progress } from '../../shared/task.ts';
import { isNoRoom } from '../host/no-room.ts';
import { makeTaskFolder } from '../host/task-folder.ts';
import { orAborted } from '../worker/or-aborted.ts';
import { createMeter } from '../worker/progress.ts';
import type { TaskInput } from '../worker/protocol.ts';

/** An upload that a task waits for before it starts. */
export interface Waiting {
  id: string;
  /** As the command declares it, or null. */
  size: number | null;
  progress(progress: Progress): void;
  /** The bytes are all there. */
  arrived(input: TaskInput): void;
  /** Nothing came in time. */
  failed(error: CisternError): void;
}

export interface InputsOptions {
  spoolDir: string;
  /** Largest input in bytes. */
  maxSize: number;
  /** An upload that moves no byte for so long is given up. */
  stallSeconds: number;
}

/** How long a task waits for an upload to begin, or to begin anew after it broke. */
const WAIT_MS = 15 * 60_000;

interface Entry {
  waiting: Waiting;
  timer: NodeJS.Timeout;
  /** While bytes come in. */
  upload: { abort: AbortController; done: Promise<unknown> } | undefined;
}

/** The declared upload of a command, or undefined where it takes none. */
export function uploadOf(command: CommandMessage): { size: number | null } | undefined {
  return command.kind === 'image.import' && command.input.source.type === 'upload'
    ? { size: command.input.source.size }
    : undefined;
}

/** Receives the bytes of tasks with an upload source into their spool folders, hashing them on the way. */
export function createInputs({ spoolDir, maxSize, stallSeconds }: InputsOptions) {
  const entries = new Map<string, Entry>();

  const startTimer = (waiting: Waiting): NodeJS.Timeout =>
    setTimeout(
      () => waiting.failed(new CisternError('TIMEOUT', `task ${waiting.id}: no upload came within ${WAIT_MS / 60_000} minutes`)),
      WAIT_MS,
    ).unref();

  async function store({ id, size, progress }: Waiting, body: Readable, signal: AbortSignal): Promise<TaskInput> {
    const folder = join(spoolDir, id);
    await makeTaskFolder(folder);
    const path = join(folder, 'input');
    const limit = Math.min(size ?? maxSize, maxSize);
    const hash = createHash('sha256');
    const meter = createMeter(progress);
    let received = 0;
    let lastByte = performance.now();
    const stalled = new AbortController();
    const watch = setInterval(() => {
      if (performance.now() - lastByte > stallSeconds * 1000)
        stalled.abort(
          new CisternError('TRANSFER_STALLED', `task ${id}: the upload stopped at ${received} bytes for ${stallSeconds} s`),
        );
    }, 1000);
    const both = AbortSignal.any([signal, stalled.signal]);
    // the request must live on where this fails, as its answer says why: so no pipeline(), which would destroy it
    const chunks = body.iterator({ destroyOnReturn: false }) as AsyncIterator<Buffer>;
    try {
      await using file = await open(path, 'w', 0o600);
      for (let next = await orAborted(chunks.next(), both); !next.done; next = await orAborted(chunks.next(), both)) {
        received += next.value.length;
        lastByte = performance.now();
        if (received > limit)
          throw new CisternError(
            'TOO_LARGE',
            `task ${id}: the upload is larger than the ${limit} bytes that were ${limit === size ? 'declared' : 'allowed (maxImageSize)'}`,
          );
        hash.update(next.value);
        await file.writeFile(next.value);
        meter.report('receive', received, size);
      }
      if (size !== null && received !== size)
        throw new CisternError('BAD_REQUEST', `task ${id}: ${received} bytes came, ${size} were declared`);
      return { path, size: received, sha256: hash.digest('hex') };
    } catch (error) {
      await rm(path, { force: true });
      throw explain(error, id, received, signal, stalled.signal);
    } finally {
      // lets go of the request, so that the rest of it can be drained; after an abort that waits for the next chunk
      const released = chunks.return?.();
      if (!both.aborted) await released;
      clearInterval(watch);
      meter.stop();
    }
  }

  return {
    expect(waiting: Waiting): void {
      entries.set(waiting.id, { waiting, timer: startTimer(waiting), upload: undefined });
    },
    /** Takes the body of a request. WRONG_STATE where the task does not wait for one, or another is coming in. A broken one may be sent again. */
    async receive(id: string, body: Readable): Promise<{ received: number }> {
      const entry = entries.get(id);
      if (!entry) throw new CisternError('WRONG_STATE', `task ${id} does not wait for an upload`);
      if (entry.upload) throw new CisternError('WRONG_STATE', `task ${id}: an upload is coming in already`);
      clearTimeout(entry.timer);
      const abort = new AbortController();
      const stored = store(entry.waiting, body, abort.signal);
      entry.upload = { abort, done: stored.catch(() => undefined) };
      try {
        const input = await stored;
        if (entries.get(id) !== entry) throw new CisternError('CANCELLED', `task ${id} ended while its upload came in`);
        entries.delete(id);
        entry.waiting.arrived(input);
        return { received: input.size };
      } catch (error) {
        entry.upload = undefined;
        if (entries.get(id) === entry) entry.timer = startTimer(entry.waiting);
        throw error;
      }
    },
    /** The task will not run: stops an upload and removes what came in. False where the task was not waiting. */
    async drop(id: string): Promise<boolean> {
      const entry = entries.get(id);
      if (!entry) return false;
      entries.delete(id);
      clearTimeout(entry.timer);
      entry.upload?.abort.abort();
      await entry.upload?.done;
      await rm(join(spoolDir, id), { recursive: true, force: true });
      return true;
    },
    waits: (id: string): boolean => entries.has(id),
  };
}

function explain(error: unknown, id: string, received: number, cancelled: AbortSignal, stalled: AbortSignal): unknown {
  if (cancelled.aborted) return new CisternError('CANCELLED', `task ${id} was cancelled while its upload came in`);
  if (stalled.aborted) return stalled.reason;
  if (error instanceof CisternError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  if (isNoRoom(error))
    return new CisternError('NO_CAPACITY', `task ${id}: the spool is full after ${received} bytes of the upload`);
  if (code === 'ERR_STREAM_PREMATURE_CLOSE' || code === 'ECONNRESET')
    return new CisternError('BAD_REQUEST', `task ${id}: the upload broke off after ${received} bytes`);
  return new CisternError('IO_ERROR', `task ${id}: storing the upload after ${received} bytes: ${message}`);
}
