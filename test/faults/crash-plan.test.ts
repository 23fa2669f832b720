import assert from 'node:assert/strict';
import { globSync } from 'node:fs';
import { PER_HOUSE } from './crash/range.ts';
import { planOf } from './crash/seed.ts';

/** What a blow kills at least: workers may be one or more, and where there is none, their agent is the one. */
const KILLS = { worker: 1, agent: 1, controller: 1, 'controller and agent': 2, 'all three': 2 };

describe('the crash suite', () => {
  const houses = globSync('crash-[0-9]*.test.ts', { cwd: import.meta.dirname }).length;

  it('kills at least 300 processes in every full test run', () => {
    const plans = Array.from({ length: houses * PER_HOUSE }, (_, i) => planOf(i + 1));
    const kills = plans.flatMap(plan => plan.blows).reduce((sum, { target }) => sum + KILLS[target], 0);
    assert.ok(kills >= 300, `${kills} kills in ${houses} houses of ${PER_HOUSE} seeds`);
  });

  it('makes the same choices for the same seed', () => {
    const choices = (seed: number) => {
      const { stories, cancel, blows } = planOf(seed);
      return { stories: stories.map(story => story.title), cancel, blows };
    };
    for (let seed = 1; seed <= 50; seed++) assert.deepEqual(choices(seed), choices(seed));
    assert.notDeepEqual(choices(1), choices(2));
  });
});
