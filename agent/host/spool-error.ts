import { CisternError, wrapError } from '../../shared/errors.ts';

/** A failed call on a file of the host's own disk: NO_CAPACITY where the disk is full, else IO_ERROR. CisternErrors pass. */
export function spoolError(error: unknown, tried: string): CisternError {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return wrapError(error, code === 'ENOSPC' || code === 'EDQUOT' ? 'NO_CAPACITY' : 'IO_ERROR', tried);
}
