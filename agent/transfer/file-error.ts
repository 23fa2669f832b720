import { CisternError, type ErrorCode } from '../../shared/errors.ts';

/**
 * A failed file operation as a CisternError: a full disk or quota is `full`, a missing file `missing`, a refused one `denied`, where
 * the caller gives such codes; IO_ERROR otherwise.
 */
export function fileError(
  error: unknown,
  tried: string,
  codes: { full?: ErrorCode; missing?: ErrorCode; denied?: ErrorCode } = {},
): CisternError {
  if (error instanceof CisternError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  return new CisternError(kind(code, codes) ?? 'IO_ERROR', `${tried}: ${message}`, { cause: error });
}

function kind(
  errno: string | undefined,
  codes: { full?: ErrorCode; missing?: ErrorCode; denied?: ErrorCode },
): ErrorCode | undefined {
  if (errno === 'ENOSPC' || errno === 'EDQUOT') return codes.full;
  if (errno === 'ENOENT') return codes.missing;
  if (errno === 'EACCES' || errno === 'EPERM' || errno === 'EROFS') return codes.denied;
  return undefined;
}
