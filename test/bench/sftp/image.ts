import { randomBytes } from 'node:crypto';
import { open } from 'node:fs/promises';
import { join } from 'node:path';

export const SIZE = 2 * 2 ** 30;
const EXTENT = 64 * 2 ** 20;

/** Random bytes all through. */
export const dense = (folder: string): Promise<string> => make(join(folder, 'dense.raw'), () => true);

/** 64 MiB of random bytes, 64 MiB of hole, and so on. */
export const halfZero = (folder: string): Promise<string> => make(join(folder, 'half.raw'), extent => extent % 2 === 0);

async function make(path: string, filled: (extent: number) => boolean): Promise<string> {
  await using file = await open(path, 'w');
  await file.truncate(SIZE);
  for (let extent = 0; extent * EXTENT < SIZE; extent++) {
    if (filled(extent)) await file.write(randomBytes(EXTENT), 0, EXTENT, extent * EXTENT);
  }
  await file.sync();
  return path;
}
