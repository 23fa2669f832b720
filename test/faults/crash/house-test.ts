import assert from 'node:assert/strict';
import { PER_HOUSE, playRange } from './range.ts';
import { tableOf } from './tally.ts';

/** Declares the test of the `n`-th house of seeds. A file for each: a file has ten minutes. */
export function testHouse(n: number): void {
  const from = (n - 1) * PER_HOUSE + 1;
  const to = n * PER_HOUSE;
  describe('kill -9 of workers, agents and controller at random moments', () => {
    it(`loses nothing and leaves nothing: seeds ${from} to ${to}`, async function () {
      this.timeout(590_000);
      const { tally, failures } = await playRange(from, to, () => undefined);
      console.log(tableOf(tally).replace(/^/gm, '      '));
      assert.ok(failures.length === 0, failures.join('\n\n'));
      assert.ok(tally.kills >= to - from + 1, 'each seed has a kill at least');
    });
  });
}
