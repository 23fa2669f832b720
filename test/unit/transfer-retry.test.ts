import assert from 'node:assert/strict';
import { makePace, setPace } from '../../agent/transfer/pace.ts';
import { digestOf } from '../../agent/transfer/parts.ts';
import { makeQueue } from '../../agent/transfer/queue.ts';
import { transfer } from '../../agent/transfer/transfer.ts';
import { fillNumbers, flakySink, flakySource } from './flaky-end.ts';

const PART = 4096;
const PARTS = 24;
const SIZE = PARTS * PART - 7;
const never = new AbortController().signal;
const calm = { streams: 3, stallSeconds: 30, signal: never, partSize: PART };
const whole = (): Buffer => {
  const bytes = Buffer.alloc(SIZE);
  fillNumbers(0, bytes);
  return bytes;
};

describe('a transfer whose storage fails now and then', () => {
  for (const [what, source, sink] of [
    ['reading', 5, 0],
    ['writing', 0, 5],
    ['both', 7, 6],
  ] as const)
    it(`begins anew what failed and arrives whole: ${what}`, async () => {
      const to = flakySink(SIZE, sink, 'STORE_UNREACHABLE');
      const { summary, parts } = await transfer({ ...calm, source: flakySource(SIZE, source, 'STORE_UNREACHABLE'), sink: to });
      assert.ok(to.bytes.equals(whole()));
      assert.deepEqual(to.ended, ['publish']);
      assert.ok(summary.retries > 0, 'it was begun anew');
      assert.deepEqual(
        [...to.arrivals].toSorted((a, b) => a[0] - b[0]).map(([, digest]) => digest),
        parts,
      );
      assert.equal(summary.moved, SIZE);
    });

  it('is given up when it fails time after time with nothing brought, and keeps what it has', async () => {
    const sink = flakySink(SIZE, 1, 'STORE_UNREACHABLE');
    const source = flakySource(SIZE, 0, 'STORE_UNREACHABLE');
    await assert.rejects(transfer({ ...calm, streams: 1, source, sink }), { code: 'STORE_UNREACHABLE', message: /failure at 6/ });
    assert.deepEqual([sink.ended, source.opened()], [['park'], 6]);
  });

  it('fails at once for what does not pass by itself, and keeps nothing', async () => {
    const sink = flakySink(SIZE, 3, 'STORE_FULL');
    const source = flakySource(SIZE, 0, 'STORE_UNREACHABLE');
    await assert.rejects(transfer({ ...calm, streams: 1, source, sink }), { code: 'STORE_FULL', message: /failure at 3/ });
    assert.deepEqual([sink.ended, source.opened()], [['abort'], 1]);
  });

  it('ends at once when it is cancelled in a pause', async () => {
    const cancel = new AbortController();
    const sink = flakySink(SIZE, 1, 'STORE_BUSY');
    const begun = transfer({ ...calm, source: flakySource(SIZE, 0, 'STORE_BUSY'), sink, signal: cancel.signal });
    cancel.abort(new Error('enough'));
    await assert.rejects(begun, /enough/);
    assert.deepEqual(sink.ended, ['park']);
  });

  it('takes up parts that lie there already, and reads only the rest where it knows what they are', async () => {
    const there = whole();
    const kept = new Map(
      [0, 1, 5, PARTS - 1].map(part => [part, digestOf(there.subarray(part * PART, (part + 1) * PART))] as const),
    );
    const parts = Array.from({ length: PARTS }, (_, part) => digestOf(there.subarray(part * PART, (part + 1) * PART)));
    const source = flakySource(SIZE, 0, 'STORE_BUSY');
    const sink = { ...flakySink(SIZE, 0, 'STORE_BUSY'), kept };
    const { summary } = await transfer({ ...calm, source, sink, parts });
    assert.equal(summary.resumed, 4 * PART - 7);
    assert.equal(summary.moved, SIZE - summary.resumed);
    assert.equal(Atomics.load(source.seen, 0), PARTS - 4);
  });

  it('refuses to go on with the parts of another object', async () => {
    const sink = { ...flakySink(SIZE, 0, 'STORE_BUSY'), kept: new Map([[2, 'f'.repeat(64)]]) };
    await assert.rejects(transfer({ ...calm, source: flakySource(SIZE, 0, 'STORE_BUSY'), sink }), {
      code: 'TRANSFER_CHANGED',
      message: /part 2 of flaky source/,
    });
    assert.deepEqual(sink.ended, ['abort']);
  });
});

describe('a transfer that is held down', () => {
  it('moves no more than its rate, and goes on at once when that is lifted', async () => {
    const pace = makePace(PART); // a part a second: the whole would take 24 s
    const sink = flakySink(SIZE, 0, 'STORE_BUSY');
    const seen: number[] = [];
    const begun = performance.now();
    const progress = (done: number): void => {
      seen.push(done);
      // nothing of the clock is asserted but that the rate was kept: a slow machine moves less
      const most = 3 * PART + ((performance.now() - begun) / 1000) * PART;
      if (done < SIZE) assert.ok(done <= most, `${done} bytes, where ${most} were allowed`);
      if (done >= 2 * PART) setPace(pace, null);
    };
    await transfer({ ...calm, streams: 1, source: flakySource(SIZE, 0, 'STORE_BUSY', pace), sink, progress });
    assert.ok(sink.bytes.equals(whole()));
    assert.ok(
      seen.some(done => done > 0 && done < SIZE / 2),
      'it was seen on its way',
    );
  });

  it('can be cancelled while it waits', async () => {
    const cancel = new AbortController();
    const sink = flakySink(SIZE, 0, 'STORE_BUSY');
    const source = flakySource(SIZE, 0, 'STORE_BUSY', makePace(1));
    const begun = transfer({ ...calm, source, sink, signal: cancel.signal, stallSeconds: 60 });
    setImmediate(() => cancel.abort(new Error('enough')));
    await assert.rejects(begun, /enough/);
  });
});

describe('how many lanes may run', () => {
  it('is halved each time that the storage asks for a pause, and never less than one', () => {
    const queue = makeQueue([1, 2, 3], 8);
    const widths = Array.from({ length: 5 }, () => {
      queue.narrow();
      return queue.width();
    });
    assert.deepEqual(widths, [4, 2, 1, 1, 1]);
  });
});
