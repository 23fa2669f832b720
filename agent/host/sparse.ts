import type { FileHandle } from 'node:fs/promises';

/** What is zero from end to end becomes a hole, in pieces of this size. */
const PIECE = 64 * 1024;
const ZEROS = Buffer.alloc(PIECE);
const BUFFER = 16 * PIECE;

/** Writes a stream of bytes into a new, empty file, leaving holes where it is zero. `admit` is told the size reached and may throw. */
export async function writeSparse(
  file: FileHandle,
  chunks: AsyncIterable<Uint8Array>,
  admit: (size: number) => void,
): Promise<number> {
  const buffer = Buffer.allocUnsafe(BUFFER);
  let filled = 0;
  let flushed = 0;
  const flush = async (): Promise<void> => {
    for (const [start, end] of dataRuns(buffer.subarray(0, filled)))
      await writeAll(file, buffer.subarray(start, end), flushed + start);
    flushed += filled;
    filled = 0;
  };
  for await (const chunk of chunks) {
    admit(flushed + filled + chunk.length);
    for (let at = 0; at < chunk.length;) {
      const part = chunk.subarray(at, at + BUFFER - filled);
      buffer.set(part, filled);
      filled += part.length;
      at += part.length;
      if (filled === BUFFER) await flush();
    }
  }
  await flush();
  await file.truncate(flushed);
  return flushed;
}

/** Start and end of what is not zero, neighbours joined. */
function dataRuns(data: Buffer): [number, number][] {
  const runs: [number, number][] = [];
  for (let start = 0; start < data.length; start += PIECE) {
    const piece = data.subarray(start, start + PIECE);
    if (piece.equals(piece.length === PIECE ? ZEROS : ZEROS.subarray(0, piece.length))) continue;
    const last = runs.at(-1);
    if (last !== undefined && last[1] === start) last[1] += piece.length;
    else runs.push([start, start + piece.length]);
  }
  return runs;
}

/** All of `data` at `position`: one call may write less than it was given. */
export async function writeAll(file: FileHandle, data: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < data.length;)
    done += (await file.write(data, done, data.length - done, position + done)).bytesWritten;
}
