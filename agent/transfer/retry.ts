/** Which failures of a lane are worth another try, and when. */
import { setTimeout as delay } from 'node:timers/promises';
import { CisternError, type ErrorCode } from '../../shared/errors.ts';

/** Failures in a row, with no part brought in between, after which a lane gives up. */
export const ATTEMPTS = 6;
const FIRST_MS = 250;
const LONGEST_MS = 15_000;

const PASSING: ReadonlySet<ErrorCode> = new Set<ErrorCode>(['STORE_UNREACHABLE', 'STORE_BUSY']);

/** Whether a failure may pass by itself: a connection that was cut, a server that asks for a pause. */
export const isPassing = (error: unknown): error is CisternError => error instanceof CisternError && PASSING.has(error.code);

/** The pause before attempt `failures` + 1: doubled each time, and between half and the whole of that, so that lanes spread. */
export const pause = (failures: number, signal: AbortSignal): Promise<void> => {
  const whole = Math.min(FIRST_MS * 2 ** (failures - 1), LONGEST_MS);
  return delay(whole * (0.5 + Math.random() / 2), undefined, { signal, ref: false });
};
