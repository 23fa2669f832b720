/**
 * A client of the NBD protocol on a unix socket, with several requests on the way: fixed newstyle negotiation and simple replies.
 * https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
 */
import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { EndError } from '../transfer/end-error.ts';
import { incoming } from './incoming.ts';

const MAGIC = 'NBDMAGICIHAVEOPT';
const OPTION = Buffer.from('IHAVEOPT');
const OPTION_GO = 7;
const REPLY_ACK = 1;
const REPLY_INFO = 3;
const REPLY_ERROR = 0x80000000;
const REQUEST = 0x25609513;
const REPLY = 0x67446698;
const TYPE = { read: 0, write: 1, disconnect: 2, flush: 3 } as const;
/** Fixed newstyle, and no zeros behind the negotiation. */
const CLIENT_FLAGS = 3;
const ERRNO: Record<number, [code: 'STORE_PERMISSION' | 'STORE_FULL' | 'STORE_UNREACHABLE', words: string]> = {
  1: ['STORE_PERMISSION', 'operation not permitted'],
  22: ['STORE_UNREACHABLE', 'timed out'], // NBD has no number for a time-out, and qemu-nbd sends this one for it
  28: ['STORE_FULL', 'no space left'],
  108: ['STORE_UNREACHABLE', 'the server shuts down'],
};

export interface Nbd {
  /** Bytes of the export. */
  size: number;
  /** Fills `into`. */
  read(offset: number, into: Uint8Array): Promise<void>;
  /** `sent`: `data` belongs to the caller again; `done`: the server has written it. Both fail where the connection ends. */
  write(offset: number, data: Uint8Array): { sent: Promise<void>; done: Promise<void> };
  /** Everything that was written before lies on the storage. */
  flush(): Promise<void>;
  close(): void;
}

interface Waiting {
  into: Uint8Array | undefined;
  tried: string;
  resolve(): void;
  reject(error: EndError): void;
}

/** `name` tells in errors what is read or written. Throws STORE_UNREACHABLE where the connection ends, STORE_IO_ERROR for refusals. */
export async function connectNbd(path: string, name: string): Promise<Nbd> {
  const socket = createConnection(path);
  const lost = (cause?: unknown): EndError =>
    new EndError('STORE_UNREACHABLE', `using ${name}: the connection to its qemu-nbd was closed`, { cause });
  const stream = incoming(socket, lost);
  try {
    await once(socket, 'connect');
    const size = await negotiate(socket, stream.fill, name);
    return requests(socket, stream.fill, size, name, lost);
  } catch (error) {
    socket.destroy();
    throw error instanceof EndError ? error : lost(error);
  }
}

type Fill = (into: Uint8Array) => Promise<void>;

/** Bytes of the only export. */
async function negotiate(socket: Socket, fill: Fill, name: string): Promise<number> {
  const hello = Buffer.alloc(18);
  await fill(hello);
  if (hello.toString('latin1', 0, 16) !== MAGIC) throw broken(name, 'no greeting of NBD');
  const go = Buffer.alloc(4 + 16 + 6); // an empty export name, no questions
  go.writeUInt32BE(CLIENT_FLAGS, 0);
  OPTION.copy(go, 4);
  go.writeUInt32BE(OPTION_GO, 12);
  go.writeUInt32BE(6, 16);
  socket.write(go);
  let size: number | undefined;
  const head = Buffer.alloc(20);
  for (let replies = 0; replies < 16; replies++) {
    await fill(head);
    const type = head.readUInt32BE(12);
    const length = head.readUInt32BE(16);
    if (length > 65536) throw broken(name, `a reply of ${length} bytes`);
    const body = Buffer.alloc(length);
    await fill(body);
    if (type >= REPLY_ERROR) throw broken(name, `refusal ${type - REPLY_ERROR}: ${body.toString('utf8')}`);
    if (type === REPLY_INFO && length >= 12 && body.readUInt16BE(0) === 0) size = Number(body.readBigUInt64BE(2));
    if (type === REPLY_ACK && size !== undefined) return size;
  }
  throw broken(name, 'no end of its negotiation');
}

function requests(socket: Socket, fill: Fill, size: number, name: string, lost: (cause?: unknown) => EndError): Nbd {
  const waiting = new Map<number, Waiting>();
  let last = 0;
  let over: EndError | undefined;
  const end = (error: unknown): void => {
    over ??= error instanceof EndError ? error : lost(error);
    socket.destroy();
    for (const { reject } of waiting.values()) reject(over);
    waiting.clear();
  };
  const listen = async (): Promise<void> => {
    const head = Buffer.alloc(16);
    for (;;) {
      await fill(head);
      const handle = Number(head.readBigUInt64BE(8));
      const request = waiting.get(handle);
      if (head.readUInt32BE(0) !== REPLY || request === undefined) throw broken(name, 'a reply to no request');
      const errno = head.readUInt32BE(4);
      if (errno === 0 && request.into) await fill(request.into);
      waiting.delete(handle);
      if (errno === 0) request.resolve();
      else {
        const [code, words] = ERRNO[errno] ?? (['STORE_IO_ERROR', `error ${errno}`] as const);
        request.reject(new EndError(code, `${request.tried} ${name}: ${words}`));
      }
    }
  };
  listen().catch(end);

  const send = (
    type: number,
    offset: number,
    length: number,
    tried: string,
    { into, data }: { into?: Uint8Array; data?: Uint8Array } = {},
  ): { sent: Promise<void>; done: Promise<void> } => {
    const done = Promise.withResolvers<void>();
    const sent = Promise.withResolvers<void>();
    for (const { promise } of [done, sent]) promise.catch(() => undefined); // the one that is waited for tells it
    if (over) {
      done.reject(over);
      sent.reject(over);
      return { sent: sent.promise, done: done.promise };
    }
    const handle = ++last;
    waiting.set(handle, { into, tried, resolve: done.resolve, reject: done.reject });
    const head = Buffer.alloc(28);
    head.writeUInt32BE(REQUEST, 0);
    head.writeUInt16BE(type, 6);
    head.writeBigUInt64BE(BigInt(handle), 8);
    head.writeBigUInt64BE(BigInt(offset), 16);
    head.writeUInt32BE(length, 24);
    const written = (error?: Error | null): void => (error ? sent.reject(lost(error)) : sent.resolve());
    if (data === undefined) socket.write(head, written);
    else {
      socket.write(head);
      socket.write(data, written);
    }
    return { sent: sent.promise, done: done.promise };
  };
  return {
    size,
    read: (offset, into) => send(TYPE.read, offset, into.length, `reading ${into.length} bytes at ${offset} of`, { into }).done,
    write: (offset, data) => send(TYPE.write, offset, data.length, `writing ${data.length} bytes at ${offset} of`, { data }),
    flush: () => send(TYPE.flush, 0, 0, 'flushing').done,
    close: () => {
      send(TYPE.disconnect, 0, 0, 'leaving');
      socket.end();
    },
  };
}

const broken = (name: string, what: string): EndError =>
  new EndError('STORE_IO_ERROR', `using ${name}: its qemu-nbd sent ${what}`);
