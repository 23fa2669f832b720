import type { ErrorCode } from '../../shared/errors.ts';
import { isNoRoom } from '../host/no-room.ts';

/** Error codes for what is special about where a file lies; IO_ERROR where not given. */
export interface FileCodes {
  /** no room, or no quota: POOL_FULL or STORE_FULL */
  full?: ErrorCode | undefined;
  /** the disk failed: POOL_IO_ERROR or STORE_IO_ERROR */
  broken?: ErrorCode | undefined;
  missing?: ErrorCode | undefined;
  denied?: ErrorCode | undefined;
}

/** The code that a failed file operation stands for. */
export function fileCode(error: unknown, codes: FileCodes = {}): ErrorCode {
  const { code } = error as NodeJS.ErrnoException;
  if (isNoRoom(error)) return codes.full ?? 'IO_ERROR';
  if (code === 'EIO') return codes.broken ?? 'IO_ERROR';
  if (code === 'ENOENT') return codes.missing ?? 'IO_ERROR';
  if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS') return codes.denied ?? 'IO_ERROR';
  return 'IO_ERROR';
}
