import { CisternError } from '../../shared/errors.ts';
import { shown } from '../host/held.ts';
import { saidOf } from '../host/no-room.ts';
import { fileCode, type FileCodes } from './file-code.ts';

/** A failed file operation as a CisternError, with the caller's codes for what is special; a CisternError is left as it is. */
export function fileError(error: unknown, tried: string, codes: FileCodes = {}): CisternError {
  if (error instanceof CisternError) return error;
  return new CisternError(fileCode(error, codes), shown(`${tried}: ${saidOf(error as Error)}`), { cause: error });
}
