import type { Operation } from '../../shared/model.ts';
import type { Disk } from '../servers/disk.ts';

/**
 * Blocks of 4 KiB that are left: first in steps that small files meet, then in such that an image meets. XFS asks for some thirty
 * blocks before it makes the first file at all.
 */
const ROOMS = {
  ext4: [0, 1, 2, 3, 4, 5, 6, 8, 12, 16, 64, 512, 8192],
  xfs: [0, 28, 32, 36, 40, 48, 56, 64, 72, 96, 512, 8192],
};
/** Without any failure for so many rooms in a row, none is to come. */
const ENOUGH = 2;

/**
 * Does `work` with ever more room on a disk, so that each of its steps is the one that finds no room, until it succeeds; asks `check`
 * after each. Returns the codes that it failed with, each once, in the order of their first show.
 */
export async function eachRoom(
  disk: Disk,
  work: () => Promise<Operation>,
  check: (state: Operation['state']) => Promise<void>,
): Promise<string[]> {
  const codes = new Set<string>();
  let successes = 0;
  for (const blocks of ROOMS[disk.kind]) {
    using _full = await disk.fill(blocks);
    const { state, error } = await work();
    if (error) {
      codes.add(error.code);
      successes = 0;
    } else successes++;
    await check(state);
    if (successes === ENOUGH) return [...codes];
  }
  if (successes === 0) throw new Error(`it failed also with plenty of room: ${[...codes].join(', ')}`);
  return [...codes];
}
