import { readSync, writevSync } from 'node:fs';
import { EndError } from '../../transfer/end-error.ts';
import type { ChannelData } from './channel.ts';
import { broken, packetLength, parseStatus, requestHead, statusError, TYPE } from './wire.ts';

/** Requests on the way at once: 32 x 255 KiB fill OpenSSH's window of 2 MiB and the buffers around it. */
export const IN_FLIGHT = 32;

/** A channel as a thread uses it: every call blocks until it is done, or throws STORE_UNREACHABLE when the channel ends. */
export interface Blocking {
  /** Sends a request; returns its id. */
  send(type: number, ...body: Uint8Array[]): number;
  /** Fills `into` from the channel. */
  fill(into: Uint8Array): void;
  /** The next packet without its length word. */
  receive(): Buffer;
  /** Throws what a STATUS packet tells, unless it is OK. */
  expectOk(packet: Buffer): void;
}

/** `tried` names in errors what the channel is used for. */
export function blocking(channel: ChannelData, tried: string): Blocking {
  let lastId = 0;
  const word = Buffer.alloc(4);
  const lost = (cause?: unknown): EndError =>
    new EndError('STORE_UNREACHABLE', `${tried}: the connection was closed in the middle`, { cause });
  const fill = (into: Uint8Array): void => {
    for (let at = 0; at < into.length;) {
      const n = readSync(channel.input, into, at, into.length - at, null);
      if (n === 0) throw lost();
      at += n;
    }
  };
  return {
    fill,
    send: (type, ...body) => {
      const id = (lastId = (lastId + 1) >>> 0);
      const length = body.reduce((sum, piece) => sum + piece.length, 0);
      try {
        writeAll(channel.output, [requestHead(type, id, length), ...body]);
      } catch (error) {
        throw (error as NodeJS.ErrnoException).code === 'EPIPE' ? lost(error) : error;
      }
      return id;
    },
    receive: () => {
      fill(word);
      const packet = Buffer.allocUnsafe(packetLength(word));
      fill(packet);
      return packet;
    },
    expectOk: packet => {
      if (packet[0] !== TYPE.status || packet.length < 9) throw broken(`a packet of type ${packet[0]} where a status was due`);
      const { code, message } = parseStatus(packet);
      if (code !== 0) throw statusError(code, message, tried);
    },
  };
}

function writeAll(fd: number, pieces: Uint8Array[]): void {
  const left = [...pieces];
  while (left.length > 0) {
    let n = writevSync(fd, left);
    while (left.length > 0 && n >= left[0]!.length) n -= left.shift()!.length;
    if (left.length > 0) left[0] = left[0]!.subarray(n);
  }
}
