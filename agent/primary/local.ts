import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { z } from 'zod';
import { CisternError } from '../../shared/errors.ts';
import type { PrimaryDriver } from './driver.ts';
import { sync } from '../transfer/file-end.ts';
import { FILE_VOLUMES, openFilePool } from './file-pool.ts';
import { isFull, isPoolPath, POOL_PATH_WORDS } from './file-pool/paths.ts';

const LocalConfig = z.strictObject({
  path: z
    .string()
    .refine(isPoolPath, POOL_PATH_WORDS)
    .describe('folder on the host that becomes the pool, such as /var/lib/cistern/pool'),
});
type LocalConfig = z.infer<typeof LocalConfig>;

/** A folder on the host's own disk. Each host that connects has a pool of its own there. */
export const local: PrimaryDriver<LocalConfig> = {
  type: 'local',
  title: 'Folder on the host',
  shared: false,
  config: LocalConfig,
  volumes: FILE_VOLUMES,
  async connect({ id, config }, { initialize }) {
    const made = initialize ? await makeFolder(config.path) : undefined;
    return openFilePool({ path: config.path, id, type: 'local', shared: false, initialize, made });
  },
};

/**
 * Makes a folder with those above it, durably, since what is fsynced below a folder that a power cut takes away is lost with it;
 * returns how many were made, or undefined where it was there.
 */
async function makeFolder(path: string): Promise<number | undefined> {
  try {
    const first = await mkdir(path, { recursive: true, mode: 0o755 });
    if (first === undefined) return undefined;
    // "/.": the last of the names above may be a link
    for (let at = path; at.length >= first.length; at = dirname(at)) await sync(`${dirname(at)}/.`);
    return path.split('/').length - first.split('/').length + 1;
  } catch (error) {
    throw new CisternError(isFull(error) ? 'POOL_FULL' : 'POOL_UNAVAILABLE', `making the pool folder ${path}: ${String(error)}`, {
      cause: error,
    });
  }
}
