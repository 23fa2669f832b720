import assert from 'node:assert/strict';
import { fillPattern } from '../conformance/gate-end.ts';
import type { Blocking } from '../../agent/backup/sftp/blocking.ts';
import { makeReader } from '../../agent/backup/sftp/reader.ts';
import { parseLimits, parseVersion, statusError, string, TYPE, uint32, uint64 } from '../../agent/backup/sftp/wire.ts';
import fc from 'fast-check';

interface Request {
  id: number;
  offset: number;
  length: number;
}
const reply = (type: number, id: number, body: Buffer): Buffer =>
  Buffer.concat([uint32(5 + body.length), Buffer.from([type]), uint32(id), body]);
const data = (id: number, offset: number, length: number): Buffer => {
  const bytes = Buffer.alloc(length);
  fillPattern(offset, bytes);
  return reply(TYPE.data, id, string(bytes));
};

/** A peer that keeps requests until bytes are wanted, and then lets `choose` say which one is answered, and how. */
function peer(choose: (waiting: Request[]) => Buffer): Blocking & { most: number } {
  const waiting: Request[] = [];
  let stream = Buffer.alloc(0);
  let lastId = 0;
  const link = {
    most: 0,
    send: (_type: number, ...body: Uint8Array[]) => {
      const [, offset, length] = body.map(piece => Buffer.from(piece));
      waiting.push({ id: ++lastId, offset: Number(offset!.readBigUInt64BE(0)), length: length!.readUInt32BE(0) });
      link.most = Math.max(link.most, waiting.length);
      return lastId;
    },
    fill: (into: Uint8Array) => {
      while (stream.length < into.length) stream = Buffer.concat([stream, choose(waiting)]);
      into.set(stream.subarray(0, into.length));
      stream = stream.subarray(into.length);
    },
    receive: () => assert.fail('not used by the reader'),
    expectOk: (packet: Buffer) => {
      throw statusError(packet.readUInt32BE(5), '', 'reading');
    },
  };
  return link;
}

describe('reading an object over SFTP', () => {
  it('puts together replies that are short and come in any order', () => {
    const sizes = fc.record({
      parts: fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1, maxLength: 5 }),
      max: fc.integer({ min: 1, max: 64 }),
    });
    fc.assert(
      fc.property(sizes, fc.infiniteStream(fc.nat(1000)), ({ parts, max }, luck) => {
        const next = (below: number): number => (luck.next().value as number) % below;
        const link = peer(waiting => {
          const [one] = waiting.splice(next(waiting.length), 1);
          return data(one!.id, one!.offset, 1 + next(one!.length));
        });
        let moved = 0;
        const reader = makeReader(link, Buffer.alloc(0), max, n => (moved += n));
        const offsets = parts.map((_, i) => parts.slice(0, i).reduce((a, b) => a + b, 0));
        reader.ask!(0, parts[0]!);
        parts.forEach((length, i) => {
          if (i + 1 < parts.length) reader.ask!(offsets[i + 1]!, parts[i + 1]!);
          const into = Buffer.alloc(length);
          const expected = Buffer.alloc(length);
          fillPattern(offsets[i]!, expected);
          void reader.read(offsets[i]!, into);
          assert.deepEqual(into, expected);
        });
        assert.equal(
          moved,
          parts.reduce((a, b) => a + b, 0),
        );
        assert.ok(link.most <= 32);
      }),
    );
  });

  it('has the next part asked for while the present one is read', () => {
    const link = peer(waiting => {
      const one = waiting.shift()!;
      return data(one.id, one.offset, one.length);
    });
    const reader = makeReader(link, Buffer.alloc(0), 10, () => undefined);
    reader.ask!(0, 20);
    reader.ask!(20, 20);
    assert.equal(link.most, 4);
  });

  it('says where an object ends too early', () => {
    const link = peer(waiting => reply(TYPE.status, waiting.shift()!.id, Buffer.concat([uint32(1), string('eof'), string('')])));
    const reader = makeReader(link, Buffer.alloc(0), 10, () => undefined);
    assert.throws(() => reader.read(5, Buffer.alloc(3)), { code: 'IO_ERROR', message: /3 bytes at 5/ });
  });

  for (const [what, packet] of Object.entries({
    'more than was asked for': () => data(1, 0, 11),
    'nothing at all': () => data(1, 0, 0),
    'a reply to no request': () => data(77, 0, 3),
    'a packet without end': () => Buffer.concat([uint32(0xffffffff), Buffer.alloc(20)]),
  })) {
    it(`trusts no server that sends ${what}`, () => {
      const reader = makeReader(peer(packet), Buffer.alloc(0), 10, () => undefined);
      assert.throws(() => reader.read(0, Buffer.alloc(10)), { code: 'STORE_UNREACHABLE', message: /broke the protocol/ });
    });
  }
});

describe('the first words of an SFTP server', () => {
  it('are its version and its extensions', () => {
    const packet = Buffer.concat([
      Buffer.from([TYPE.version]),
      uint32(3),
      string('a@b'),
      string('1'),
      string('limits@openssh.com'),
      string('1'),
    ]);
    assert.deepEqual([...parseVersion(packet)], ['a@b', 'limits@openssh.com']);
    assert.throws(() => parseVersion(Buffer.from([TYPE.version, 0, 0, 0, 6])), { code: 'STORE_UNREACHABLE' });
    assert.throws(() => parseVersion(packet.subarray(0, -9)), { code: 'STORE_UNREACHABLE' });
  });

  it('tell its limits; where a limit is missing or endless, ours count', () => {
    const limits = (read: number, write: number): Buffer =>
      Buffer.concat([Buffer.from([TYPE.reply]), uint32(0), ...[262144, read, write, 0].map(uint64)]);
    assert.deepEqual(parseLimits(limits(261120, 1000)), { read: 261120, write: 1000 });
    assert.deepEqual(parseLimits(limits(0, 2 ** 40)), { read: 262144, write: 262144 });
    assert.deepEqual(parseLimits(Buffer.from([TYPE.status, 0, 0, 0, 0])), { read: 32768, write: 32768 });
  });
});
