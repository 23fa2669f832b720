import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../../host/run.ts';
import { createFile } from './meta.ts';
import { isFull, poolError, type PoolRoot } from './paths.ts';

/** A file in the pool's root that only takes room. */
export const RESERVE = '.reserve';
/** Bytes. XFS demands up to some fifty blocks of 4 KiB before it moves a name from one folder to another. */
const SIZE = 2 ** 20;

const reserveFile = (pool: PoolRoot): string => join(pool.root, RESERVE);

/** Sets a little room aside while there is some, so that a full pool can still be cleared: a delete is a rename, which may need a block. */
export async function keepReserve(pool: PoolRoot): Promise<void> {
  const path = reserveFile(pool);
  try {
    // random, since file systems that compress take no room for zeros
    await createFile(path, randomBytes(SIZE));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return;
    await rm(path, { force: true });
    if (!isFull(error)) throw poolError(error, `writing ${path}`);
  }
}

/** Moves an entry inside the pool; where that needs room and there is none, the reserve is given for it. */
export async function moveEntry(pool: PoolRoot, from: string, to: string): Promise<void> {
  try {
    await rename(from, to);
  } catch (error) {
    if (!isFull(error) || !(await giveReserve(pool))) throw error;
    await rename(from, to);
  }
}

/** False where it has been given already. */
async function giveReserve(pool: PoolRoot): Promise<boolean> {
  const path = reserveFile(pool);
  try {
    // the blocks of a file that is only removed come free some time later
    await using file = await open(path, constants.O_WRONLY | constants.O_NOFOLLOW);
    await file.truncate(0);
    await file.sync();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    if (!isFull(error)) throw error;
    // btrfs lets nothing be cut short where a quota is used up, but removed; its room is there with the next commit
    await rm(path, { force: true });
    await run('sync', ['--file-system', '--', pool.root], { timeoutSeconds: 120 });
  }
  await rm(path, { force: true });
  return true;
}
