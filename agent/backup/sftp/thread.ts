/** Reads and writes one object through a channel inside a transfer thread, with many requests on the way at once. */
import type { Moved, RangeReader, RangeWriter } from '../../transfer/ends.ts';
import type { ChannelData } from './channel.ts';
import { blocking, IN_FLIGHT, type Blocking } from './blocking.ts';
import { makeReader } from './reader.ts';
import { broken, OPEN, string, TYPE, uint32, uint64 } from './wire.ts';

export interface ObjectData {
  channel: ChannelData;
  /** Absolute path on the server. */
  path: string;
  /** For messages. */
  name: string;
}

export function openReader(data: unknown, moved: Moved): RangeReader {
  const { channel, path, name } = data as ObjectData;
  const link = blocking(channel, `reading ${name}`);
  const handle = openObject(link, path, OPEN.read);
  return makeReader(link, handle, channel.maxRead, moved);
}

export function openWriter(data: unknown, moved: Moved): RangeWriter {
  const { channel, path, name } = data as ObjectData;
  const link = blocking(channel, `writing ${name}`);
  const handle = openObject(link, path, OPEN.write);
  const flying = new Map<number, { bytes: number; of: number }>(); // by request id; `of`: which write it belongs to
  let writes = 0;
  const acknowledge = (): void => {
    const packet = link.receive();
    const id = packet.readUInt32BE(1);
    const request = flying.get(id);
    if (request === undefined) throw broken('a reply to no request');
    flying.delete(id);
    link.expectOk(packet);
    moved(request.bytes);
  };
  return {
    write: (offset, bytes) => {
      const of = writes++;
      for (let at = 0; at < bytes.length; at += channel.maxWrite) {
        while (flying.size >= IN_FLIGHT) acknowledge();
        const piece = bytes.subarray(at, at + channel.maxWrite);
        flying.set(link.send(TYPE.write, handle, uint64(offset + at), uint32(piece.length), piece), {
          bytes: piece.length,
          of,
        });
      }
    },
    arrived: () => {
      const [oldest] = flying.values(); // in the order sent; a later write has sent nothing before it
      return oldest ? oldest.of : writes;
    },
    close: () => {
      while (flying.size > 0) acknowledge();
      link.send(TYPE.close, handle);
      link.expectOk(link.receive()); // some file systems tell only now that the disk is full
    },
  };
}

/** The handle of an object, already with its length in front, as requests want it. */
function openObject(link: Blocking, path: string, flags: number): Buffer {
  link.send(TYPE.open, string(path), uint32(flags), uint32(0));
  const packet = link.receive();
  if (packet[0] !== TYPE.handle) {
    link.expectOk(packet);
    throw broken('no handle');
  }
  return packet.subarray(5);
}
