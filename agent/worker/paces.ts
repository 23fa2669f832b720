import type { Paces } from '../../shared/task.ts';
import { makePace, setPace, type Pace } from '../transfer/pace.ts';

/** How fast one task may go to and from each backup storage. All its transfers with one storage share that one's pace. */
export interface TaskPaces {
  of(storeId: string): Pace;
  /** From now on, also for what moves already; storages that are not named go on as before. */
  set(paces: Paces): void;
}

export function createPaces(given: Paces): TaskPaces {
  const paces = new Map<string, Pace>();
  const of = (storeId: string): Pace => {
    const known = paces.get(storeId) ?? makePace(null);
    paces.set(storeId, known);
    return known;
  };
  const set = (some: Paces): void => {
    for (const [storeId, bytesPerSecond] of Object.entries(some)) setPace(of(storeId), bytesPerSecond);
  };
  set(given);
  return { of, set };
}
