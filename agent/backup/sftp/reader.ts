import { EndError } from '../../transfer/end-error.ts';
import type { Moved, RangeReader } from '../../transfer/ends.ts';
import { IN_FLIGHT, type Blocking } from './blocking.ts';
import { broken, packetLength, parseStatus, TYPE, uint32, uint64 } from './wire.ts';

interface Range {
  offset: number;
  length: number;
}

/**
 * Reads announced ranges: requests for the next one are sent while replies to the present one still come in, and the window is never
 * empty while the caller hashes. Replies may come in any order, and shorter than asked (the rest is asked again). What comes early
 * for the next range is kept aside; that is at most the window.
 */
export function makeReader(link: Blocking, handle: Buffer, maxRead: number, moved: Moved): RangeReader {
  const unsent: Range[] = []; // pieces of announced ranges, in order
  const flying = new Map<number, Range>();
  const early: { offset: number; data: Buffer }[] = [];
  const announced: Range[] = [];
  const head = Buffer.alloc(13); // length word, type, id, and the length of the data or the number of a status

  const send = (): void => {
    while (flying.size < IN_FLIGHT && unsent.length > 0) {
      const piece = unsent.shift()!;
      flying.set(link.send(TYPE.read, handle, uint64(piece.offset), uint32(piece.length)), piece);
    }
  };
  const ask = (offset: number, length: number): void => {
    announced.push({ offset, length });
    for (let at = 0; at < length; at += maxRead) unsent.push({ offset: offset + at, length: Math.min(maxRead, length - at) });
    send();
  };
  /** Takes one reply, into `into` if it belongs to the range that begins at `base`; returns the bytes that came for it. */
  const receive = (base: number, into: Uint8Array): number => {
    link.fill(head);
    const rest = packetLength(head) - 9;
    if (rest < 0) throw broken('a cut packet');
    const piece = flying.get(head.readUInt32BE(5));
    if (!piece) throw broken('a reply to no request');
    flying.delete(head.readUInt32BE(5));
    if (head[4] !== TYPE.data) return refuse(rest, piece);
    const length = head.readUInt32BE(9);
    if (length !== rest || length === 0 || length > piece.length)
      throw broken(`${length} bytes of data where ${piece.length} were asked for`);
    if (length < piece.length) unsent.unshift({ offset: piece.offset + length, length: piece.length - length });
    const at = piece.offset - base;
    const mine = at >= 0 && at < into.length;
    const target = mine ? into.subarray(at, at + length) : Buffer.allocUnsafe(length);
    link.fill(target);
    moved(length);
    send();
    if (!mine) early.push({ offset: piece.offset, data: Buffer.from(target.buffer, target.byteOffset, length) });
    return mine ? length : 0;
  };
  const refuse = (rest: number, piece: Range): never => {
    const packet = Buffer.concat([head.subarray(4), Buffer.alloc(rest)]);
    link.fill(packet.subarray(9));
    if (packet[0] === TYPE.status && parseStatus(packet).code === 1) {
      throw new EndError('IO_ERROR', `reading ${piece.length} bytes at ${piece.offset}: the object ends before that`);
    }
    link.expectOk(packet);
    throw broken('a status of success where data was due');
  };
  const takeEarly = (base: number, into: Uint8Array): number => {
    let got = 0;
    for (const { offset, data } of early.splice(0)) {
      into.set(data, offset - base); // one range is announced ahead, so what came early is of this one
      got += data.length;
    }
    return got;
  };
  return {
    ask,
    read: (offset, into) => {
      if (announced.length === 0) ask(offset, into.length);
      const range = announced.shift();
      if (range?.offset !== offset || range.length !== into.length)
        throw new EndError('INTERNAL', `read at ${offset} was not announced`);
      let left = into.length - takeEarly(offset, into);
      while (left > 0) left -= receive(offset, into);
    },
    close: () => undefined, // the server closes the handle with the channel
  };
}
