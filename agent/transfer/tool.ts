/** The lane of a tool: a program of others moves the whole object between a storage and a file, and the file is verified part by part. */
import { lstat } from 'node:fs/promises';
import { CisternError } from '../../shared/errors.ts';
import { run } from '../host/run.ts';
import { fileError } from './file-error.ts';
import { fileEnd } from './file-end.ts';
import type { Job, Moving } from './moving.ts';
import { nowhere } from './nowhere.ts';
import { partRange, ZERO } from './parts.ts';
import type { Plan } from './plan.ts';
import { moveRanges, type RangesMoved } from './ranges.ts';
import { ATTEMPTS, isPassing, pause } from './retry.ts';
import { mismatch } from './verify.ts';

const TICK_MS = 200;

/** Moves the object in one piece, then reads the file. Parts of zeros cross too; those of a file that arrived become holes. */
export async function moveByTool(job: Job, { tool, file }: Plan & { lane: 'tool' }, moving: Moving): Promise<RangesMoved> {
  const { source } = job;
  const sent = source.file === undefined ? undefined : await stamp(file);
  const retries = await runTool(job, { lane: 'tool', tool, file }, moving);
  const parts = await digests(job, file, moving);
  for (const [part, digest] of parts.entries()) {
    const expected = job.parts?.[part];
    const { offset, length } = partRange(part, source.size, job.partSize);
    if (expected !== undefined && expected !== digest) throw mismatch(source.name, part, { offset, length, digest, expected });
  }
  if (sent !== undefined && sent !== (await stamp(file)))
    throw new CisternError('TRANSFER_CHANGED', `sending ${source.name}: it changed while ${tool.name} sent it`);
  if (sent === undefined && parts.includes(ZERO)) await digHoles(file);
  return { parts, streams: 1, resumed: 0, retries };
}

/** Begins anew after failures that may pass. Counts each byte once, at the first time. Returns how often it was begun anew. */
async function runTool(job: Job, { tool, file }: Plan & { lane: 'tool' }, { signal, counter }: Moving): Promise<number> {
  let counted = 0;
  const told = (bytes: number): void => {
    const most = Math.min(bytes, job.source.size);
    if (most > counted) Atomics.add(counter, 0, BigInt(most - counted));
    counted = Math.max(counted, most);
  };
  for (let failures = 0; ;) {
    signal.throwIfAborted();
    try {
      await tool.run(file, { signal, told });
      told(job.source.size);
      return failures;
    } catch (error) {
      signal.throwIfAborted();
      if (!isPassing(error) || ++failures >= ATTEMPTS) throw error;
      await pause(failures, signal);
    }
  }
}

/** What the parts of the file are; counts each byte once more. */
async function digests(job: Job, file: string, { signal, counter }: Moving): Promise<string[]> {
  const { source, sink } = job;
  const { size } = await lstat(file);
  if (size !== source.size)
    throw new CisternError('DIGEST_MISMATCH', `moving ${source.name}: ${size} of its ${source.size} bytes arrived`);
  const read = new BigInt64Array(new SharedArrayBuffer(8));
  let counted = 0n;
  const count = (): void => {
    const now = Atomics.load(read, 0) / 2n;
    Atomics.add(counter, 0, now - counted);
    counted = now;
  };
  const timer = setInterval(count, TICK_MS);
  try {
    const from = {
      name: source.file === undefined ? sink.name : source.name,
      size,
      ranges: () => Promise.resolve(fileEnd(file, undefined)),
    };
    const to = nowhere();
    const way = { lane: 'ranges' as const, read: from.ranges, write: to.ranges! };
    const { parts } = await moveRanges({ ...job, source: from, sink: to, parts: undefined }, way, { signal, counter: read });
    count();
    return parts;
  } finally {
    clearInterval(timer);
  }
}

/** What tells a file that was written to from one that was not. */
async function stamp(file: string): Promise<string> {
  try {
    const { ino, size, mtimeNs, ctimeNs } = await lstat(file, { bigint: true });
    return [ino, size, mtimeNs, ctimeNs].join(' ');
  } catch (error) {
    throw fileError(error, `looking at ${file}`, undefined);
  }
}

/** Gives the room of zeros back. Some file systems know no holes: there it stays as it is. */
async function digHoles(file: string): Promise<void> {
  await run('fallocate', ['--dig-holes', '--', file], { accept: [0, 1], timeoutSeconds: 3600 });
}
