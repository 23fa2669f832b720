import assert from 'node:assert/strict';
import fc from 'fast-check';
import { interleave, medianOf, quantileOf, ratioOf } from '../bench/row.ts';

describe('benchmarks: figures', () => {
  it('take the middle value, or the mean of the two in the middle', () => {
    assert.equal(medianOf([9, 1, 5]), 5);
    assert.equal(medianOf([1, 10, 2, 3]), 2.5);
    assert.equal(quantileOf([0, 10], 0.95), 9.5);
    assert.throws(() => medianOf([]), RangeError);
  });

  it('never lie outside of what was measured, whatever the order', () => {
    fc.assert(
      fc.property(fc.array(fc.integer(), { minLength: 1 }), fc.double({ min: 0, max: 1, noNaN: true }), (values, q) => {
        const at = quantileOf(values, q);
        return at >= Math.min(...values) && at <= Math.max(...values) && at === quantileOf(values.toReversed(), q);
      }),
    );
  });

  it('have a ratio above 1 where ours is better, for rates and for times', () => {
    assert.equal(ratioOf(200, 100, 'more'), 2);
    assert.equal(ratioOf(5, 10, 'less'), 2);
  });

  it('are measured in turns, so that no tool always goes first', async () => {
    const order: string[] = [];
    const run = (name: string) => async () => order.push(name);
    const figures = await interleave({ ours: run('ours'), tool: run('tool') }, 3);
    assert.deepEqual(order, ['ours', 'tool', 'tool', 'ours', 'ours', 'tool']);
    assert.deepEqual(figures, { ours: [1, 4, 5], tool: [2, 3, 6] });
  });
});
