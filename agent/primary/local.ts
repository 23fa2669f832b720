import { mkdir } from 'node:fs/promises';
import { isAbsolute, normalize } from 'node:path';
import { z } from 'zod';
import { CisternError } from '../../shared/errors.ts';
import type { PrimaryDriver } from './driver.ts';
import { openFilePool } from './file-pool.ts';

const LocalConfig = z.strictObject({
  path: z
    .string()
    .refine(
      path => isAbsolute(path) && normalize(path) === path && path !== '/' && !path.endsWith('/') && !path.includes('\0'),
      'an absolute path without "..", "." or a slash at its end',
    )
    .describe('folder on the host that becomes the pool, such as /var/lib/cistern/pool'),
});
type LocalConfig = z.infer<typeof LocalConfig>;

/** A folder on the host's own disk. Each host that connects has a pool of its own there. */
export const local: PrimaryDriver<LocalConfig> = {
  type: 'local',
  title: 'Folder on the host',
  shared: false,
  config: LocalConfig,
  async connect({ id, config }, { initialize }) {
    const made = initialize ? await makeFolder(config.path) : undefined;
    return openFilePool({ path: config.path, id, type: 'local', shared: false, initialize, made });
  },
};

/** Makes a folder with those above it; returns how many were made, or undefined where it was there. */
async function makeFolder(path: string): Promise<number | undefined> {
  const first = await mkdir(path, { recursive: true, mode: 0o755 }).catch((cause: NodeJS.ErrnoException) => {
    throw new CisternError('POOL_UNAVAILABLE', `making the pool folder ${path}: ${cause.message}`, { cause });
  });
  return first === undefined ? undefined : path.split('/').length - first.split('/').length + 1;
}
