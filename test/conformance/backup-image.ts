/** Images and helpers that the backup suite works with. */
import { randomBytes } from 'node:crypto';
import { mkdtemp, open, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileSink } from '../../agent/transfer/file-end.ts';
import type { Sink } from '../../agent/transfer/ends.ts';

/** Small parts, so that small files have many. */
export const PART = 2 ** 20;

export async function tempFolder(): Promise<AsyncDisposable & { path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'cistern-backup-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

/** A file of random bytes with holes: `holes` are part numbers. No other part is all zeros, be it one byte long. */
export async function makeImage(path: string, size: number, holes: number[] = [], part = PART): Promise<void> {
  await using file = await open(path, 'w');
  await file.truncate(size);
  for (let at = 0, index = 0; at < size; at += part, index++) {
    if (!holes.includes(index)) await file.write(randomBytes(Math.min(part, size - at)).fill(1, 0, 1), 0, undefined, at);
  }
}

export const sinkInto = (folder: string, size: number): Promise<Sink> =>
  fileSink({ partial: join(folder, 'arriving'), final: join(folder, 'arrived'), size, mode: 0o444 });

/** Every file below a folder, relative to it; folders do not count. */
export async function filesBelow(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter(entry => !entry.isDirectory())
    .map(entry => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort();
}

/** Changes one byte of a file. */
export async function flipByte(path: string, offset: number): Promise<void> {
  await using file = await open(path, 'r+');
  const { buffer } = await file.read(Buffer.alloc(1), 0, 1, offset);
  await file.write(Buffer.from([buffer[0]! ^ 1]), 0, 1, offset);
}
