/**
 * A program: serves one file, `disk`, by FUSE at a mount point, from the file that lies behind it. What it finds in the file of faults,
 * asked for each request, fails with EIO: one a line, `read FROM TO` or `write FROM TO` (bytes). Ends with its mount.
 * Its protocol: /usr/include/linux/fuse.h, version 7.31. Arguments: descriptor of /dev/fuse, file behind, file of faults.
 */
import { fstatSync, openSync, readFileSync, readSync, writeSync } from 'node:fs';

const OP = {
  lookup: 1,
  forget: 2,
  getattr: 3,
  open: 14,
  read: 15,
  write: 16,
  release: 18,
  fsync: 20,
  flush: 25,
  init: 26,
  interrupt: 36,
  destroy: 38,
  batchForget: 42,
};
const SILENT = [OP.forget, OP.interrupt, OP.batchForget];
const [EIO, ENOENT, ENOSYS] = [5, 2, 38];
const HEAD = 40;
const LARGEST = 2 ** 20;
const BIG_WRITES = 2 ** 5;
const MAX_PAGES = 2 ** 22;
const DIRECT_IO = 1;

const [device, behind, faults] = process.argv.slice(2) as [string, string, string];
const fuse = Number(device);
const file = openSync(behind, 'r+');
const request = Buffer.alloc(LARGEST + 4096);

for (let length = next(); length > 0; length = next()) {
  const [op, unique] = [request.readUInt32LE(4), request.readBigUInt64LE(8)];
  if (SILENT.includes(op)) continue;
  const answer = serve(op, request.subarray(HEAD, length));
  const [error, body] = typeof answer === 'number' ? [answer, Buffer.alloc(0)] : [0, answer];
  const head = Buffer.alloc(16);
  head.writeUInt32LE(16 + body.length, 0);
  head.writeInt32LE(-error, 4);
  head.writeBigUInt64LE(unique, 8);
  writeSync(fuse, Buffer.concat([head, body]));
}

/** Length of the next request; 0 once it is unmounted. */
function next(): number {
  for (;;)
    try {
      return readSync(fuse, request);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENODEV') return 0;
      if (code !== 'EINTR' && code !== 'ENOENT') throw error; // the request was taken back
    }
}

/** The body of the answer, or an error number. */
function serve(op: number, body: Buffer): Buffer | number {
  switch (op) {
    case OP.init:
      return numbers(64, [7, 31, LARGEST, BIG_WRITES | MAX_PAGES, 0, LARGEST, 1, LARGEST / 4096]);
    case OP.lookup:
      return body.toString('latin1') === 'disk\0' ? Buffer.concat([numbers(40, [2]), attributes(2)]) : ENOENT;
    case OP.getattr:
      return Buffer.concat([numbers(16, []), attributes(Number(request.readBigUInt64LE(16)))]);
    case OP.open:
      return numbers(16, [0, 0, DIRECT_IO]);
    case OP.read:
    case OP.write: {
      const [offset, size] = [Number(body.readBigUInt64LE(8)), body.readUInt32LE(16)];
      if (isBad(op === OP.read ? 'read' : 'write', offset, offset + size)) return EIO;
      if (op === OP.read) return take(offset, size);
      return numbers(8, [writeSync(file, body, HEAD, size, offset)]);
    }
    case OP.flush:
    case OP.release:
    case OP.fsync:
    case OP.destroy:
      return Buffer.alloc(0);
    default:
      return ENOSYS;
  }
}

function isBad(what: string, from: number, to: number): boolean {
  return readFileSync(faults, 'utf8')
    .split('\n')
    .some(line => {
      const [op, first, end] = line.split(' ');
      return op === what && from < Number(end) && to > Number(first);
    });
}

function take(offset: number, size: number): Buffer {
  const bytes = Buffer.alloc(size);
  return bytes.subarray(0, readSync(file, bytes, 0, size, offset));
}

/** `struct fuse_attr` of the folder (1) or of the file. */
function attributes(node: number): Buffer {
  const size = node === 1 ? 0 : fstatSync(file).size;
  const out = numbers(88, [node]);
  out.writeBigUInt64LE(BigInt(size), 8);
  out.writeBigUInt64LE(BigInt(Math.ceil(size / 512)), 16);
  out.writeUInt32LE(node === 1 ? 0o40700 : 0o100600, 60);
  out.writeUInt32LE(1, 64);
  out.writeUInt32LE(4096, 80);
  return out;
}

function numbers(size: number, values: number[]): Buffer {
  const out = Buffer.alloc(size);
  values.forEach((value, i) => out.writeUInt32LE(value, 4 * i));
  return out;
}
