/**
 * Packets of SFTP version 3 (draft-ietf-secsh-filexfer-02) and of the extensions of OpenSSH's PROTOCOL file, as far as moving the
 * bytes of one object needs them. Everything else goes through ssh2-sftp-client.
 */
import type { ErrorCode } from '../../../shared/errors.ts';
import { EndError } from '../../transfer/end-error.ts';

export const TYPE = {
  init: 1,
  version: 2,
  open: 3,
  close: 4,
  read: 5,
  write: 6,
  status: 101,
  handle: 102,
  data: 103,
  extended: 200,
  reply: 201,
} as const;
export const OPEN = { read: 1, write: 2 } as const;

/** No packet that we ask for is larger: a data packet of 256 KiB and its head. */
const PACKET_LIMIT = 2 ** 18 + 1024;
/** What every server must take (draft, 3): asked for where it does not tell its limits. */
export const SAFE_LENGTH = 32768;
const MAX_LENGTH = 2 ** 18;

export const uint32 = (value: number): Buffer => {
  const out = Buffer.allocUnsafe(4);
  out.writeUInt32BE(value);
  return out;
};
export const uint64 = (value: number): Buffer => {
  const out = Buffer.allocUnsafe(8);
  out.writeBigUInt64BE(BigInt(value));
  return out;
};
export const string = (value: string | Buffer): Buffer => {
  const bytes = Buffer.from(value as string);
  return Buffer.concat([uint32(bytes.length), bytes]);
};

export const initPacket = (): Buffer => Buffer.from([0, 0, 0, 5, TYPE.init, 0, 0, 0, 3]);

/** Length, type and id of a request whose body of `length` bytes follows. */
export function requestHead(type: number, id: number, length: number): Buffer {
  const head = Buffer.allocUnsafe(9);
  head.writeUInt32BE(5 + length);
  head[4] = type;
  head.writeUInt32BE(id, 5);
  return head;
}

/** Bytes that follow the length word. Throws where no honest server would send so many. */
export function packetLength(word: Buffer): number {
  const length = word.readUInt32BE(0);
  if (length < 5 || length > PACKET_LIMIT) throw broken(`a packet of ${length} bytes`);
  return length;
}

/** The extensions named in a VERSION packet (without its length word). */
export function parseVersion(packet: Buffer): Set<string> {
  if (packet[0] !== TYPE.version || packet.readUInt32BE(1) !== 3) throw broken('no SFTP version 3');
  const names = new Set<string>();
  for (let at = 5; at + 4 <= packet.length;) {
    const [name, value] = [packet.readUInt32BE(at), at + 4 + packet.readUInt32BE(at)];
    names.add(packet.toString('latin1', at + 4, at + 4 + name));
    if (value + 4 > packet.length) throw broken('a cut VERSION packet');
    at = value + 4 + packet.readUInt32BE(value);
  }
  return names;
}

/** The longest read and write that the server takes, from the reply to limits@openssh.com; 0 there means no limit. */
export function parseLimits(reply: Buffer): { read: number; write: number } {
  if (reply[0] !== TYPE.reply || reply.length < 5 + 32) return { read: SAFE_LENGTH, write: SAFE_LENGTH };
  const limit = (at: number): number => Math.min(MAX_LENGTH, Number(reply.readBigUInt64BE(at)) || MAX_LENGTH);
  return { read: limit(13), write: limit(21) };
}

/** Numbers of SSH_FX_*; those above 8 are of later drafts, which some servers send all the same. */
const STATUS: Record<number, ErrorCode> = {
  2: 'OBJECT_MISSING',
  3: 'STORE_PERMISSION',
  6: 'STORE_UNREACHABLE',
  7: 'STORE_UNREACHABLE',
  14: 'STORE_FULL',
  15: 'STORE_FULL',
};

/** The error that a STATUS stands for. 4 (failure) says nothing: IO_ERROR. */
export function statusError(code: number, message: string, tried: string): EndError {
  return new EndError(
    STATUS[code] ?? 'IO_ERROR',
    `${tried}: the SFTP server answered ${code} (${message.slice(0, 200) || 'no reason given'})`,
  );
}

/** The status number and text of a STATUS packet without its length word. */
export function parseStatus(packet: Buffer): { code: number; message: string } {
  const length = packet.length >= 13 ? packet.readUInt32BE(9) : 0;
  return { code: packet.readUInt32BE(5), message: packet.toString('utf8', 13, 13 + length) };
}

export const broken = (what: string): EndError =>
  new EndError('STORE_UNREACHABLE', `the SFTP server broke the protocol: it sent ${what}`);
