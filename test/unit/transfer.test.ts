import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import fc from 'fast-check';
import { makeManifest, parseManifest, writeManifest } from '../../agent/backup/manifest.ts';
import type { Sink, Source } from '../../agent/transfer/ends.ts';
import { flusher } from '../../agent/transfer/flusher.ts';
import { digestOf, digestOfParts, isZero, LARGEST_PART, partCount, partRange, partsToMove } from '../../agent/transfer/parts.ts';
import { transfer } from '../../agent/transfer/transfer.ts';
import { newId } from '../../shared/id.ts';

const PART = 4096;
const never = new AbortController().signal;
const calm = { streams: 1, stallSeconds: 10, signal: never, partSize: PART };

const streamSource = (body: Buffer, size = body.length, chunk = 1000): Source => ({
  name: 'a stream',
  size,
  stream: () =>
    Promise.resolve(
      Readable.from(Array.from({ length: Math.ceil(body.length / chunk) }, (_, i) => body.subarray(i * chunk, (i + 1) * chunk))),
    ),
});
function memorySink(): Sink & { bytes: Buffer; ended: string[] } {
  const sink = {
    name: 'memory',
    bytes: Buffer.alloc(0),
    ended: [] as string[],
    stream: async (body: Readable) => {
      for await (const chunk of body) sink.bytes = Buffer.concat([sink.bytes, chunk as Buffer]);
    },
    publish: () => Promise.resolve(void sink.ended.push('publish')),
    abort: () => Promise.resolve(void sink.ended.push('abort')),
  };
  return sink;
}

describe('parts', () => {
  it('cover an object without gap or overlap', () => {
    fc.assert(
      fc.property(fc.nat(10 * LARGEST_PART), size => {
        let at = 0;
        for (let i = 0; i < partCount(size); i++) {
          const { offset, length } = partRange(i, size);
          assert.equal(offset, at);
          assert.ok(length > 0 && length <= LARGEST_PART);
          at += length;
        }
        assert.equal(at, size);
      }),
    );
  });

  it('are zero only where every byte is', () => {
    assert.ok(isZero(Buffer.alloc(0)));
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 300 }), fc.nat(), fc.integer({ min: 1, max: 255 }), (length, at, value) => {
        const data = Buffer.alloc(length);
        assert.ok(isZero(data));
        data[at % length] = value;
        assert.ok(!isZero(data));
      }),
    );
    assert.ok(!isZero(Buffer.alloc(10, 7)));
  });

  it('are told by SHA-256, and need not be moved where the manifest says zero', () => {
    assert.equal(digestOf(Buffer.from('abc')), createHash('sha256').update('abc').digest('hex'));
    assert.deepEqual(partsToMove(4, ['zero', 'x', 'zero', 'y']), [1, 3]);
    assert.deepEqual(partsToMove(2, undefined), [0, 1]);
  });
});

describe('the lane of one stream', () => {
  it('moves the bytes, verified, and publishes', async () => {
    const body = Buffer.concat([randomBytes(PART), Buffer.alloc(PART), randomBytes(5)]);
    const first = memorySink();
    const { parts, summary } = await transfer({ ...calm, source: streamSource(body), sink: first });
    assert.deepEqual([first.bytes, first.ended], [body, ['publish']]);
    assert.deepEqual([parts[1], summary.lane, summary.zeroParts, summary.moved], ['zero', 'stream', 1, body.length]);
    const second = memorySink();
    await transfer({ ...calm, source: streamSource(body), sink: second, parts });
    assert.deepEqual(second.ended, ['publish']);
  });

  it('publishes nothing that differs, is cut, or is too long', async () => {
    const body = randomBytes(3 * PART);
    const { parts } = await transfer({ ...calm, source: streamSource(body), sink: memorySink() });
    const wrong = Buffer.from(body);
    wrong[PART + 1]! ^= 1;
    const cases: [Source, RegExp][] = [
      [streamSource(wrong), /part 1 of a stream/],
      [streamSource(body.subarray(0, -1), body.length), /ended after 12287 of 12288 bytes/],
      [streamSource(Buffer.concat([body, body]), body.length), /longer than the 12288/],
    ];
    for (const [source, message] of cases) {
      const sink = memorySink();
      await assert.rejects(transfer({ ...calm, source, sink, parts }), {
        name: 'CisternError',
        code: 'DIGEST_MISMATCH',
        message,
      });
      assert.deepEqual(sink.ended, ['abort']);
    }
  });

  it('passes on why the source broke', async () => {
    const sink = memorySink();
    const source: Source = {
      name: 'broken',
      size: 10,
      stream: () =>
        Promise.resolve(
          new Readable({
            read: function () {
              this.destroy(new Error('cable out'));
            },
          }),
        ),
    };
    await assert.rejects(transfer({ ...calm, source, sink }), /cable out/);
    assert.deepEqual(sink.ended, ['abort']);
  });

  it('stops when it is cancelled, and when nothing comes any more', async () => {
    const silent: Source = { name: 'silent', size: 10, stream: () => Promise.resolve(new Readable({ read: () => undefined })) };
    const cancel = new AbortController();
    const sinks = [memorySink(), memorySink()] as const;
    const cancelled = transfer({ ...calm, source: silent, sink: sinks[0], signal: cancel.signal });
    cancel.abort();
    await assert.rejects(cancelled, { name: 'AbortError' });
    await assert.rejects(transfer({ ...calm, source: silent, sink: sinks[1], stallSeconds: 0.3 }), { code: 'TRANSFER_STALLED' });
    assert.deepEqual(
      sinks.map(sink => sink.ended),
      [['abort'], ['abort']],
    );
  });
});

describe('planning a transfer', () => {
  it('prints both offers where no lane fits', async () => {
    const sink: Sink = { ...memorySink(), name: 'disk', stream: undefined, ranges: () => assert.fail('not opened') };
    await assert.rejects(transfer({ ...calm, source: streamSource(Buffer.alloc(1)), sink }), {
      code: 'TRANSFER_NO_LANE',
      message: 'moving a stream to disk: the source offers stream, the destination takes ranges',
    });
  });

  it('tells both failures where removing what arrived fails as well', async () => {
    const sink: Sink = { ...memorySink(), abort: () => Promise.reject(new Error('the disk is gone')) };
    await assert.rejects(transfer({ ...calm, source: streamSource(Buffer.alloc(1), 9), sink }), {
      code: 'DIGEST_MISMATCH',
      message: /ended after 1 of 9 bytes; and removing what had arrived in memory failed too: the disk is gone/,
    });
  });
});

describe('the manifest', () => {
  const id = newId();
  const good = makeManifest({ id, format: 'qcow2', virtualSize: 10 }, PART + 1, ['a'.repeat(64), 'zero'], PART, false);
  const refused = (changed: unknown, message: RegExp): void =>
    assert.throws(
      () => parseManifest(Buffer.from(typeof changed === 'string' ? changed : JSON.stringify(changed)), 'm.json', id),
      { code: 'MANIFEST_INVALID', message },
    );

  it('comes back as it was written', () => assert.deepEqual(parseManifest(writeManifest(good), 'm.json', id), good));

  it('has a digest that anyone can work out', () => {
    const text = `4097 4096\n${'a'.repeat(64)}\nzero\n`;
    assert.equal(good.digest, createHash('sha256').update(text).digest('hex'));
    assert.notEqual(digestOfParts(PART + 1, PART, good.parts), digestOfParts(PART + 2, PART, good.parts));
  });

  it('is refused where it is no manifest, or not of this image, or not at one with itself', () => {
    refused('{"version":1', /m\.json.*not JSON/);
    refused({ ...good, version: 2 }, /version/);
    refused({ ...good, extra: 1 }, /extra/);
    refused({ ...good, partSize: 2 * LARGEST_PART }, /partSize/);
    refused({ ...good, parts: ['a'.repeat(64)] }, /1 parts, but 4097 bytes make 2/);
    refused({ ...good, parts: ['b'.repeat(64), 'zero'] }, /digest/);
    refused({ ...good, id: newId() }, /manifest of image/);
  });
});

describe('bringing bytes to the disk on the way', () => {
  const MiB = 2 ** 20;

  it('happens time and again, one at a time', async () => {
    const ends: (() => void)[] = [];
    const flushing = flusher({ ...memorySink(), flush: () => new Promise(resolve => ends.push(resolve)) });
    for (const done of [100, 256, 600]) flushing.tick(done * MiB);
    assert.equal(ends.length, 1);
    ends[0]!();
    await flushing.settle();
    flushing.tick(700 * MiB);
    assert.equal(ends.length, 2);
    ends[1]!();
    await flushing.settle();
  });

  it('fails the transfer where the disk did, because the system tells it only once', async () => {
    const flushing = flusher({ ...memorySink(), flush: () => Promise.reject(new Error('EIO')) });
    flushing.tick(256 * MiB);
    await assert.rejects(flushing.settle(), /EIO/);
  });
});
