import { existsSync } from 'node:fs';
import { execa } from 'execa';
import { CisternError } from '../../shared/errors.ts';

const LIMIT_MS = 30_000;

/**
 * Makes the kernel let go of what it holds of the database in memory. After a failed write or fsync that is not what the disk has (fsync(2)),
 * and ext4 was seen to lose what was then written over it, although the next fsync succeeded. DATABASE_UNAVAILABLE where it cannot.
 */
export async function forgetPages(database: string): Promise<void> {
  try {
    for (const file of [database, `${database}-wal`])
      if (existsSync(file))
        await execa('dd', [`if=${file}`, 'iflag=nocache', 'count=0', 'status=none'], { timeout: LIMIT_MS, stdin: 'ignore' });
  } catch (cause) {
    const detail = `reading ${database} from its disk again after an I/O error: ${(cause as Error).message}`;
    throw new CisternError('DATABASE_UNAVAILABLE', detail, { cause });
  }
}
