/** The lane of a tool: a program of others moves the whole object between a storage and a file, and the file is verified part by part. */
import { lstat } from 'node:fs/promises';
import { CisternError } from '../../shared/errors.ts';
import { run } from '../host/run.ts';
import { fileError } from './file-error.ts';
import { fileEnd } from './file-end.ts';
import type { Job, Moving } from './moving.ts';
import { partRange, ZERO } from './parts.ts';
import type { Plan } from './plan.ts';
import type { RangesMoved } from './ranges.ts';
import { readBack } from './read-back.ts';
import { ATTEMPTS, isPassing, pause } from './retry.ts';
import { mismatch } from './verify.ts';

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
async function digests(job: Job, file: string, moving: Moving): Promise<string[]> {
  const { source, sink } = job;
  const { size } = await lstat(file);
  if (size !== source.size)
    throw new CisternError('DIGEST_MISMATCH', `moving ${source.name}: ${size} of its ${source.size} bytes arrived`);
  const name = source.file === undefined ? sink.name : source.name;
  return readBack(
    { ...job, parts: undefined, source: { name, size, ranges: () => Promise.resolve(fileEnd(file, undefined)) } },
    moving,
  );
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
