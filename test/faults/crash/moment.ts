import { watch } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Random } from './random.ts';
import type { Stage } from './stage.ts';

/** Where something changes while work goes on; each place has its own kinds of halves that a crash may leave. */
const PLACES = {
  database: 3,
  'task journal': 3,
  spool: 2,
  'pool tmp': 3,
  'pool cache': 1,
  'pool volumes': 2,
  'pool trash': 1,
  depot: 2,
  shelf: 2,
};
type Place = keyof typeof PLACES;

/** When a blow falls: some time after the work began, or at the n-th change of a place. */
export type Moment = { after: number } | { change: number; of: Place };

/** Longest wait for a change that may not come. */
const PATIENCE_MS = 2500;

export function someMoment(random: Random): Moment {
  // squared: most work is done within a tenth of a second
  if (random.chance(0.4)) return { after: Math.round(600 * random.next() ** 2) };
  const of = random.weigh(PLACES);
  return { change: random.int(1, of === 'database' ? 24 : 8), of };
}

export const sayMoment = (moment: Moment): string =>
  'after' in moment ? `after ${moment.after} ms` : `at change ${moment.change} of the ${moment.of}`;

const folderOf = (stage: Stage, host: string, place: Place): string => {
  const { folder } = stage.house.cistern;
  if (place === 'database') return join(folder, 'controller/state');
  if (place === 'task journal') return join(folder, host, 'state');
  if (place === 'spool') return join(folder, host, 'state/spool');
  if (place === 'depot' || place === 'shelf') return join(stage.store(place), 'images');
  return join(stage.pool(host), place.slice('pool '.length));
};

/** Begins to watch at once; the promise is kept when the moment has come, or when there is nothing more to come (`over`). */
export async function watchFor(stage: Stage, host: string, moment: Moment, over: AbortSignal): Promise<void> {
  if (over.aborted) return;
  if ('after' in moment) return delay(moment.after, undefined, { signal: over }).catch(() => undefined);
  const come = new AbortController();
  let changes = 0;
  const watcher = watch(folderOf(stage, host, moment.of), () => ++changes >= moment.change && come.abort());
  // a folder that vanishes changes no more
  watcher.on('error', () => undefined);
  try {
    await delay(PATIENCE_MS, undefined, { signal: AbortSignal.any([come.signal, over]) });
  } catch {
    // the moment, or the end of the work
  } finally {
    watcher.close();
  }
}
