/** Reads ranges of an object, and writes parts of a multipart upload, inside a transfer thread: straight from and into its buffer. */
import type { ClientRequest, IncomingMessage } from 'node:http';
import { EndError } from '../../transfer/end-error.ts';
import type { Moved, RangeReader, RangeWriter } from '../../transfer/ends.ts';
import { linkError, openLink, watchIdle, type Link, type LinkData } from './link.ts';
import { EMPTY } from './sign.ts';

/** Bytes that are sent, and counted, at once. */
const PIECE = 2 ** 20;

export interface ReadData {
  link: LinkData;
  /** Of the object as it was when the transfer began. */
  etag: string;
}

export interface WriteData {
  link: LinkData;
  uploadId: string;
  partSize: number;
}

interface Asked {
  request: ClientRequest;
  response: Promise<IncomingMessage>;
}

export function openReader(data: unknown, moved: Moved): RangeReader {
  const { link: linkData, etag } = data as ReadData;
  const link = openLink(linkData);
  const ahead = new Map<number, Asked>();
  const ask = (offset: number, length: number): Asked => {
    const headers = { range: `bytes=${offset}-${offset + length - 1}`, 'if-match': etag };
    const request = link.send({ method: 'GET', query: {}, payload: EMPTY, headers });
    request.end();
    const response = link.answer(request, 'reading', [206]);
    response.catch(() => undefined); // thrown when it is read
    return { request, response };
  };
  return {
    ask: (offset, length) => void ahead.set(offset, ask(offset, length)),
    read: async (offset, into) => {
      const { request, response } = ahead.get(offset) ?? ask(offset, into.length);
      ahead.delete(offset);
      watchIdle(request);
      try {
        await fill(await response, into, moved);
      } catch (error) {
        if (error instanceof EndError && error.code === 'DIGEST_MISMATCH')
          throw new EndError(error.code, `${error.message}: the object became another one while it was read`);
        throw linkError(error, `reading ${linkData.name}`);
      }
      watchIdle(request, true);
    },
    close: () => link.close(),
  };
}

/** Reads a body of exactly so many bytes. */
function fill(response: IncomingMessage, into: Uint8Array, moved: Moved): Promise<void> {
  return new Promise((resolve, reject) => {
    let at = 0;
    const fail = (): void => reject(new EndError('STORE_UNREACHABLE', `a body ended after ${at} of ${into.length} bytes`));
    response.on('data', (chunk: Buffer) => {
      if (at + chunk.length > into.length) return void response.destroy();
      into.set(chunk, at);
      at += chunk.length;
      moved(chunk.length);
    });
    response.on('end', () => (at === into.length ? resolve() : fail()));
    response.on('error', reject);
    response.on('close', fail); // nothing where it has ended
  });
}

/** A part is sent while the answer to the one before it is on its way. */
export function openWriter(data: unknown, moved: Moved): RangeWriter {
  const { link: linkData, uploadId, partSize } = data as WriteData;
  const link = openLink(linkData);
  let arrived = 0;
  let last: Promise<void> = Promise.resolve();
  return {
    write: async (offset, bytes, digest) => {
      const query = { partNumber: String(offset / partSize + 1), uploadId };
      const headers = { 'content-length': bytes.length };
      const request = link.send({ method: 'PUT', query, payload: digest, headers });
      const answered = accepted(link, request);
      const before = last;
      last = answered.then(() => void arrived++);
      last.catch(() => undefined); // thrown by the next write, or close
      for (let at = 0; at < bytes.length; at += PIECE) {
        const piece = bytes.subarray(at, at + PIECE);
        await sent(request, piece, answered);
        moved(piece.length);
      }
      request.end();
      await before;
    },
    arrived: () => arrived,
    close: async () => {
      try {
        await last;
      } finally {
        link.close();
      }
    },
  };
}

async function accepted(link: Link, request: ClientRequest): Promise<void> {
  watchIdle(request);
  const response = await link.answer(request, 'writing', [200]);
  response.resume();
}

/** Returns when the system has taken `piece`; throws the answer of a server that refuses before it has the whole. */
async function sent(request: ClientRequest, piece: Uint8Array, answered: Promise<void>): Promise<void> {
  const taken = new Promise<void>((resolve, reject) => request.write(piece, error => (error ? reject(error) : resolve())));
  await Promise.race([taken.catch(() => answered), answered.then(() => taken)]);
}
