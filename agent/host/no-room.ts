import { constants } from 'node:os';

/** Whether a system call failed for want of room, or of quota. Node has no name for EDQUOT: such an error says "unknown error". */
export function isNoRoom(error: unknown): boolean {
  const { code, errno } = (error ?? {}) as NodeJS.ErrnoException;
  return code === 'ENOSPC' || errno === -constants.errno.EDQUOT;
}

const NAMELESS = /UNKNOWN: unknown error|Unknown system error -\d+: Unknown system error -\d+/;

/** What a failed system call says. */
export const saidOf = (error: Error): string =>
  isNoRoom(error) ? error.message.replace(NAMELESS, 'EDQUOT: disk quota exceeded') : error.message;
