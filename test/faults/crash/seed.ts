import { setTimeout as delay } from 'node:timers/promises';
import type { Operation } from '../../../shared/model.ts';
import { settle } from './audit.ts';
import { type Blow, sayBlow, someBlow, strike } from './blow.ts';
import { begin, cancel, follow } from './client.ts';
import { type Compared, wrongBytes } from './content.ts';
import { type Moment, sayMoment, someMoment, watchFor } from './moment.ts';
import { createRandom, type Random } from './random.ts';
import { HOSTS, SPARE, type Stage } from './stage.ts';
import { imageStories } from './stories-images.ts';
import { storageStories } from './stories-storages.ts';
import { volumeStories } from './stories-volumes.ts';
import type { Act, Story } from './story.ts';

/** All choices of one seed: what is done at the same time, what is cancelled, and which blows fall. */
export interface Plan {
  seed: number;
  stories: Story[];
  /** Which of them is cancelled, and when. */
  cancel: { story: number; moment: Moment } | undefined;
  blows: Blow[];
  /** For the choices inside the stories. */
  random: Random;
}

/** What came of a seed. */
export interface Outcome {
  kills: number;
  operations: Operation[];
  refused: string[];
  leaks: string[];
  wrong: string[];
}

const STORIES = { image: imageStories, volume: volumeStories, storage: storageStories };
const WEIGHTS = { image: 4, volume: 5, storage: 2 };

export function planOf(seed: number): Plan {
  const random = createRandom(seed);
  const stories: Story[] = [];
  for (let wanted = random.int(1, 3); stories.length < wanted;) {
    const story = random.pick(STORIES[random.weigh(WEIGHTS)]);
    if (story.needs === undefined || !stories.some(other => other.needs === story.needs)) stories.push(story);
  }
  const hosts = stories.some(story => story.needs === 'spare') ? [...HOSTS, SPARE] : HOSTS;
  const cancelled = random.chance(0.25) ? { story: random.int(0, stories.length - 1), moment: someMoment(random) } : undefined;
  const count = Number(random.weigh({ 1: 3, 2: 4, 3: 3 }));
  const blows = Array.from({ length: count }, () => someBlow(random, hosts));
  return { seed, stories, cancel: cancelled, blows, random };
}

export const sayPlan = ({ stories, cancel: cancelled, blows }: Plan): string =>
  [
    ...stories.map(story => story.title),
    ...(cancelled ? [`cancel ${stories[cancelled.story]!.title} ${sayMoment(cancelled.moment)}`] : []),
    ...blows.map(sayBlow),
  ].join('; ');

/** Plays one seed. Throws where something did not end within its time. */
export async function play(stage: Stage, plan: Plan, compared: Compared): Promise<Outcome> {
  const acts: Act[] = [];
  for (const [i, story] of plan.stories.entries()) acts.push(await story.prepare(stage, `s${plan.seed}-${i + 1}`, plan.random));
  const over = new AbortController();
  const outcome: Outcome = { kills: 0, operations: [], refused: [], leaks: [], wrong: [] };
  const run = async (i: number): Promise<void> => {
    const begun = await begin(acts[i]!, `seed-${plan.seed}-${i + 1}`);
    if ('refused' in begun) return void outcome.refused.push(`${plan.stories[i]!.title}: ${begun.refused}`);
    const cancelling = plan.cancel?.story === i ? cancelAt(stage, begun.id, plan.cancel.moment, over.signal) : undefined;
    outcome.operations.push(await follow(stage, acts[i]!, begun));
    await cancelling;
  };
  const striking = (async () => {
    for (const blow of plan.blows) outcome.kills += await strike(stage, blow, over.signal);
  })();
  const running = Promise.all(acts.map((_, i) => run(i))).finally(() => over.abort());
  for (const ended of await Promise.allSettled([striking, running])) if (ended.status === 'rejected') throw ended.reason;
  for (const { id, kind, error } of outcome.operations)
    if (error?.code === 'INTERNAL') outcome.leaks.push(`operation ${id} (${kind}) failed in a way that nobody foresaw: ${error.detail}`); // prettier-ignore
  outcome.leaks.push(...(await settle(stage)));
  outcome.wrong.push(...(await wrongBytes(stage, compared)));
  return outcome;
}

async function cancelAt(stage: Stage, id: string, moment: Moment, over: AbortSignal): Promise<void> {
  await Promise.race([watchFor(stage, HOSTS[0], moment, over), delay(2500)]);
  await cancel(stage, id);
}
