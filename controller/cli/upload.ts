import { open } from 'node:fs/promises';
import { once } from 'node:events';
import { PassThrough, type Readable, Transform } from 'node:stream';
import { CisternError } from '../../shared/errors.ts';
import type { Operation } from '../../shared/model.ts';
import type { Progress } from '../../shared/task.ts';
import type { Call } from './command.ts';
import { followOperation } from './follow.ts';
import type { Io } from './io.ts';
import { printError } from './output.ts';
import { reportOutcome } from './outcome.ts';
import { isFinal } from './watch.ts';

export interface Upload {
  stream: Readable;
  /** Bytes of the file; undefined for standard input. */
  size: number | undefined;
  /** Lets go of the file; standard input that is still open no longer holds the process. */
  [Symbol.dispose](): void;
}

/** A file of this machine, or `-` for standard input, ready to be sent. Throws IO_ERROR where it cannot be read. */
export async function openUpload(path: string, io: Io): Promise<Upload> {
  if (path === '-') return openStandardInput(io.stdin as Readable);
  try {
    const file = await open(path, 'r');
    const info = await file.stat();
    if (!info.isFile()) {
      await file.close();
      throw new Error('it is not a regular file; for a device or a pipe use --file - and standard input');
    }
    // a file that grows while it is sent must not break the announced length
    const stream = file.createReadStream({ highWaterMark: 2 ** 20, end: Math.max(0, info.size - 1) });
    return { stream, size: info.size, [Symbol.dispose]: () => void stream.destroy() };
  } catch (cause) {
    throw new CisternError('IO_ERROR', `reading ${path}: ${(cause as Error).message}`, { cause });
  }
}

function openStandardInput(stdin: Readable): Upload {
  const stream = stdin.pipe(new PassThrough());
  stdin.once('error', error => stream.destroy(error));
  const close = (): void => {
    stdin.unpipe(stream);
    stdin.pause();
    stream.destroy();
  };
  return { stream, size: undefined, [Symbol.dispose]: close };
}

/**
 * Sends `upload` to an image whose import waits for it, and follows the import to its end. When sending fails while the import still
 * waits, the import is cancelled, so that no image stays half made. Returns the exit code.
 */
export async function uploadImage(call: Call, operation: Operation, upload: Upload): Promise<number> {
  const sent = countBytes(upload);
  const stop = new AbortController();
  const ref = operation.resources.find(resource => resource.kind === 'image')?.id ?? String(operation.input.name);
  let sending = true;
  let broken: { error: unknown; cancelled: boolean } | undefined;
  const send = call.client
    .uploadImage({ params: { ref } }, { stream: sent.stream, length: upload.size, signal: stop.signal })
    .catch(async (error: unknown) => {
      if (!stop.signal.aborted) broken = { error, cancelled: await endAfterFailure(call, operation.id, stop.signal) };
    })
    .finally(() => (sending = false));
  const ended = await followOperation(call, operation, {
    progress: () => (sending ? sent.progress() : undefined),
    bound: () => sending,
  });
  stop.abort();
  await send;
  // the import's own word is better than that of a connection it has cut, but a cancel of ours has its reason here
  if (ended.state === 'cancelled' && broken?.cancelled) {
    printError(call.io, broken.error);
    return 1;
  }
  return reportOutcome(call, ended);
}

/** After a broken upload: lets the import say why by itself; where it does not, cancels it and returns true. */
async function endAfterFailure(call: Call, id: string, signal: AbortSignal): Promise<boolean> {
  try {
    const operation = await call.client.getOperation({ params: { ref: id }, query: { wait: 5 } }, { signal });
    if (isFinal(operation)) return false;
    await call.client.cancelOperation({ params: { ref: id } });
    return true;
  } catch (error) {
    // it has ended meanwhile, or the controller is gone: following it tells which
    if (error instanceof CisternError) return false;
    throw error;
  }
}

/** The stream with its bytes counted as they leave. */
function countBytes({ stream, size }: Upload): { stream: Readable; progress: () => Progress } {
  const began = performance.now();
  let done = 0;
  const counter = new Transform({
    highWaterMark: 2 ** 20,
    transform: (chunk: Buffer, _encoding, next) => {
      done += chunk.length;
      next(null, chunk);
    },
    // too few bytes would leave the controller waiting for the announced length
    flush: next =>
      next(
        size === undefined || done === size
          ? null
          : new CisternError('IO_ERROR', `the file changed while it was sent: ${done} bytes instead of ${size}`),
      ),
  });
  once(stream, 'error').then(
    ([error]) => counter.destroy(error as Error),
    () => undefined,
  );
  const progress = (): Progress => {
    const rate = done / Math.max(0.001, (performance.now() - began) / 1000);
    return {
      stage: 'upload',
      done,
      total: size ?? null,
      unit: 'bytes',
      rate,
      eta: size === undefined || done === 0 ? null : (size - done) / rate,
    };
  };
  return { stream: stream.pipe(counter), progress };
}
