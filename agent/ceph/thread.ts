/** Reads and writes one RBD image through qemu-nbd inside a transfer thread, with several requests on the way at once. */
import type { Moved, RangeReader, RangeWriter } from '../transfer/ends.ts';
import { EndError } from '../transfer/end-error.ts';
import { connectNbd, type Nbd } from './nbd.ts';

export interface ImageData {
  socket: string;
  /** For messages. */
  name: string;
}

/** Half an RBD object; qemu-nbd takes up to 32 MiB, and works on 16 requests of a client at once. */
const PIECE = 2 * 2 ** 20;
const IN_FLIGHT = 12;

export async function openReader(data: unknown, moved: Moved): Promise<RangeReader> {
  const { socket, name } = data as ImageData;
  const nbd = await connectNbd(socket, name);
  return {
    read: async (offset, into) => {
      if (offset + into.length > nbd.size)
        throw new EndError('IO_ERROR', `reading ${into.length} bytes at ${offset} of ${name}: the object ends before that`);
      await allPieces(into.length, async (at, length) => {
        await nbd.read(offset + at, into.subarray(at, at + length));
        moved(length);
      });
    },
    close: () => nbd.close(),
  };
}

/** Calls `work` for each piece of a range, some at a time; waits for all that were begun. */
async function allPieces(length: number, work: (at: number, length: number) => Promise<void>): Promise<void> {
  let next = 0;
  const one = async (): Promise<void> => {
    while (next < length) {
      const at = next;
      next += PIECE;
      await work(at, Math.min(PIECE, length - at));
    }
  };
  const ended = await Promise.allSettled(Array.from({ length: IN_FLIGHT }, one));
  const failed = ended.find(end => end.status === 'rejected');
  if (failed) throw failed.reason;
}

export async function openWriter(data: unknown, moved: Moved): Promise<RangeWriter> {
  const { socket, name } = data as ImageData;
  return writer(await connectNbd(socket, name), moved);
}

function writer(nbd: Nbd, moved: Moved): RangeWriter {
  const flying = new Map<Promise<void>, number>(); // in the order sent; which write each is of
  let writes = 0;
  let failed: { error: unknown } | undefined;
  const wait = async (most: number): Promise<void> => {
    while (flying.size > most && !failed) await Promise.race(flying.keys()).catch(() => undefined);
    if (failed) throw failed.error;
  };
  return {
    write: async (offset, bytes) => {
      const of = writes++;
      for (let at = 0; at < bytes.length; at += PIECE) {
        await wait(IN_FLIGHT - 1);
        const piece = bytes.subarray(at, at + PIECE);
        const { sent, done } = nbd.write(offset + at, piece);
        const ended = done.then(
          () => {
            flying.delete(ended);
            moved(piece.length);
          },
          (error: unknown) => void (failed ??= { error }),
        );
        flying.set(ended, of);
        await sent;
      }
    },
    arrived: () => Math.min(writes, ...flying.values()),
    close: async () => {
      await wait(0);
      await nbd.flush();
      nbd.close();
    },
  };
}
