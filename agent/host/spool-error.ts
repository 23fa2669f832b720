import { CisternError, wrapError } from '../../shared/errors.ts';
import { isNoRoom, saidOf } from './no-room.ts';

/** A failed call on a file of the host's own disk: NO_CAPACITY where the disk is full, else IO_ERROR. CisternErrors pass. */
export function spoolError(error: unknown, tried: string): CisternError {
  if (isNoRoom(error)) return new CisternError('NO_CAPACITY', `${tried}: ${saidOf(error as Error)}`, { cause: error });
  return wrapError(error, 'IO_ERROR', tried);
}
