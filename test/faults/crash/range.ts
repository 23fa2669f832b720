import type { Compared } from './content.ts';
import { wrongBytes } from './content.ts';
import { type Outcome, type Plan, planOf, play, sayPlan } from './seed.ts';
import { openStage, type Stage } from './stage.ts';
import { newTally, type Tally } from './tally.ts';

/** So many seeds share a house: opening one takes as long as a few seeds. */
export const PER_HOUSE = 12;

export interface RangeResult {
  tally: Tally;
  /** Each with its seed, its plan, what was wrong and how to play it again. */
  failures: string[];
}

/**
 * Plays the seeds `from` to `to`, PER_HOUSE of them in one house; after one that failed a new house is opened, so that the next starts
 * from a good one.
 */
export async function playRange(from: number, to: number, say: (line: string) => void): Promise<RangeResult> {
  const result: RangeResult = { tally: newTally(), failures: [] };
  for (let seed = from; seed <= to;) seed = await playHouse(seed, Math.min(to, seed + PER_HOUSE - 1), result, say);
  return result;
}

/** Plays until one fails; returns the seed to go on with. */
async function playHouse(from: number, to: number, result: RangeResult, say: (line: string) => void): Promise<number> {
  await using stage = await openStage();
  const compared: Compared = new Set();
  for (let seed = from; seed <= to; seed++) {
    const plan = planOf(seed);
    const began = performance.now();
    const complaints = await playOne(stage, plan, compared, result.tally);
    if (complaints.length > 0) {
      const words = explain(stage, plan, from, complaints);
      result.failures.push(words);
      say(words);
      return seed + 1;
    }
    say(`seed ${seed}: ${((performance.now() - began) / 1000).toFixed(1)} s: ${sayPlan(plan)}`);
  }
  const late = await wrongBytes(stage, new Set());
  result.tally.wrong += late.length;
  if (late.length > 0) result.failures.push(`seeds ${from} to ${to}: right at first, wrong at the end:\n${late.join('\n')}`);
  return to + 1;
}

async function playOne(stage: Stage, plan: Plan, compared: Compared, tally: Tally): Promise<string[]> {
  tally.seeds++;
  let outcome: Outcome;
  try {
    outcome = await play(stage, plan, compared);
  } catch (error) {
    tally.leaks++;
    return [error instanceof Error ? (error.stack ?? error.message) : String(error)];
  }
  tally.kills += outcome.kills;
  tally.operations += outcome.operations.length;
  tally.recovered += outcome.operations.filter(operation => operation.state === 'succeeded').length;
  tally.failed += outcome.operations.filter(operation => operation.state !== 'succeeded').length;
  tally.leaks += outcome.leaks.length;
  tally.wrong += outcome.wrong.length;
  const complaints = [...outcome.leaks, ...outcome.wrong];
  const told = outcome.operations.map(
    ({ id, kind, state, error }) => `  operation ${id} ${kind}: ${state} ${error?.detail ?? ''}`,
  );
  return complaints.length === 0 ? [] : [...complaints, ...told, ...outcome.refused.map(words => `  refused: ${words}`)];
}

const LOG_LINES = 15;

function explain(stage: Stage, plan: Plan, from: number, complaints: string[]): string {
  const { controller, agents } = stage.house.cistern;
  const logs = [['controller', controller], ...agents.map((agent, i) => [`host-${i + 1}`, agent])] as [
    string,
    typeof controller,
  ][];
  return [
    `seed ${plan.seed}: ${sayPlan(plan)}`,
    ...complaints.map(words => `  ${words}`),
    ...logs.map(([name, { log }]) => `  last words of ${name}:\n${log.slice(-LOG_LINES).map(line => `    ${line.slice(0, 400)}`).join('\n')}`), // prettier-ignore
    `  again alone: npm run faults -- --seed ${plan.seed}`,
    `  again with what came before it in its house: npm run faults -- --from ${from} --seeds ${plan.seed - from + 1}`,
  ].join('\n');
}
