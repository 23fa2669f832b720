/** Reads an object and writes segments inside a transfer thread. */
import { hash } from 'node:crypto';
import { EndError } from '../../transfer/end-error.ts';
import type { Moved, RangeReader, RangeWriter } from '../../transfer/ends.ts';
import type { Access, Credentials } from './auth.ts';
import { drop, fill, type Answer } from './http.ts';
import { object, put, type Container } from './objects.ts';
import { openSession } from './session.ts';
import { segmentOf, type Upload } from './upload.ts';

/** What a thread is given. It renews its token itself. */
export interface ThreadData {
  credentials: Credentials;
  access: Access;
  where: Omit<Container, 'session'>;
  /** Shared: rung to end what the thread waits for. */
  bell: Int32Array;
  /** To read: the object, and the ETag that it must still have. */
  from?: { name: string; etag: string };
  /** To write. */
  upload?: Upload;
}

function open({ credentials, access, where, bell }: ThreadData): Container {
  const session = openSession(credentials, access);
  const rung = Atomics.waitAsync(bell, 0, 0);
  if (rung.async) void rung.value.then(() => session[Symbol.dispose]());
  return { ...where, session };
}

export function openReader(data: unknown, moved: Moved): RangeReader {
  const job = data as ThreadData & { from: { name: string; etag: string } };
  const where = open(job);
  const { name, etag } = job.from;
  const begin = (offset: number, length: number): Promise<Answer> =>
    where.session
      .begin(
        object(where, 'GET', name, {
          headers: { range: `bytes=${offset}-${offset + length - 1}`, 'if-match': `"${etag}"` },
          doing: `reading ${length} bytes at ${offset} of`,
          moved,
        }),
      )
      .then(answer => {
        if (answer.status === 206) return answer;
        drop(answer);
        throw new EndError(
          'IO_ERROR',
          `reading ${where.title}${name}: the server answered ${answer.status} to a request for a range`,
        );
      });
  const announced: { offset: number; length: number; answer: Promise<Answer> }[] = [];
  return {
    // its bytes wait in the connection while those of the part before are hashed and written
    ask: (offset, length) => {
      const answer = begin(offset, length);
      answer.catch(() => undefined); // told by `read`
      announced.push({ offset, length, answer });
    },
    read: async (offset, into) => {
      const first = announced.shift();
      if (first?.offset === offset && first.length === into.length) {
        try {
          return await fill(await first.answer, into);
        } catch (error) {
          // it may have waited for longer than the server likes, while bytes before it were written
          if (!(error instanceof EndError) || error.code !== 'STORE_UNREACHABLE') throw error;
        }
      }
      await fill(await begin(offset, into.length), into);
    },
    close: () => where.session[Symbol.dispose](),
  };
}

export function openWriter(data: unknown, moved: Moved): RangeWriter {
  const job = data as ThreadData & { upload: Upload };
  const where = open(job);
  return {
    write: async (offset, bytes, digest) => {
      const name = segmentOf(job.upload, offset / job.upload.partSize, digest);
      await put(where, name, bytes, { headers: { etag: hash('md5', bytes, 'hex') }, moved });
    },
    close: () => where.session[Symbol.dispose](),
  };
}
