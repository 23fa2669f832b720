import { CisternError } from '../../../shared/errors.ts';
import type { Control } from './control.ts';
import { freeSpace } from './files.ts';

/** Bytes that even a small request may need: XFS makes no file with less than some fifty blocks of 4 KiB. */
const SLACK = 2 ** 20;

/**
 * SFTP 3 has no word for a full disk (OpenSSH says "Failure"): a plain failure to write `wanted` bytes below `root`, where there is no room
 * for them, is STORE_FULL. Other errors stay as they are, also where the server does not tell its room.
 */
export async function fullOr<E>(error: E, link: Control, root: string, wanted: number): Promise<E | CisternError> {
  if (!(error instanceof CisternError) || error.code !== 'IO_ERROR') return error;
  const space = await freeSpace(link, root).catch(() => undefined); // the first failure is what counts
  if (space === undefined || (space.available >= wanted + SLACK && space.names > 0)) return error;
  const left = space.names > 0 ? `${space.available} of ${space.total} bytes` : 'no inode';
  return new CisternError('STORE_FULL', `${error.message}; the store is full: ${left} free, ${wanted} bytes were to be written`, {
    cause: error,
  });
}
