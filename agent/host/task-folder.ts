import { mkdir } from 'node:fs/promises';
import { spoolError } from './spool-error.ts';

/** A task's folder (0700) in the spool, made where it is not there. Not mkdir's own `recursive`, which says ENOENT of a quota that is used up. */
export async function makeTaskFolder(path: string): Promise<void> {
  await mkdir(path, { mode: 0o700 }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw spoolError(error, `making the spool folder ${path}`);
  });
}
