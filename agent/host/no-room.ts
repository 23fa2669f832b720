import { constants } from 'node:os';

/** Whether a system call failed for want of room, or of quota. Node has no name for EDQUOT: such an error says "unknown error". */
export function isNoRoom(error: unknown): boolean {
  const { code, errno } = (error ?? {}) as NodeJS.ErrnoException;
  return code === 'ENOSPC' || errno === -constants.errno.EDQUOT;
}

const NAMELESS = /UNKNOWN: unknown error|Unknown system error -\d+: Unknown system error -\d+/;

/** Whether an NFS server does not know any more what was opened or mounted. Node has no name for this one either. */
export const isStale = (error: unknown): boolean => ((error ?? {}) as NodeJS.ErrnoException).errno === -constants.errno.ESTALE;

/** What a failed system call says. */
export function saidOf(error: Error): string {
  if (isStale(error)) return error.message.replace(NAMELESS, 'ESTALE: stale file handle');
  return isNoRoom(error) ? error.message.replace(NAMELESS, 'EDQUOT: disk quota exceeded') : error.message;
}
