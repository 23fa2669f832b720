import type { Capacity } from '../../shared/model.ts';
import type { ControllerConfig } from '../config.ts';

/** How full a pool is: from `warn` on somebody should see to it, from `stop` on it takes no new work. */
export type Level = 'ok' | 'warn' | 'stop';

/** A level is left again only this far below its threshold, so that one volume that comes and goes makes no flood of events. */
const SLACK = 0.02;

/** The level of a pool that had the level `old`. */
export function levelOf(
  capacity: Capacity,
  old: Level,
  config: Pick<ControllerConfig, 'physicalWarning' | 'physicalThreshold'>,
): Level {
  const used = capacity.total === 0 ? 0 : 1 - capacity.available / capacity.total;
  const from = (threshold: number, held: boolean): boolean => used >= threshold - (held ? SLACK : 0);
  if (from(config.physicalThreshold, old === 'stop')) return 'stop';
  return from(config.physicalWarning, old !== 'ok') ? 'warn' : 'ok';
}

/** Why there is an event of a new level. */
export const LEVEL_WORDS: Record<Level, string> = {
  ok: 'has room again',
  warn: 'is getting full',
  stop: 'is full and takes no new work',
};
