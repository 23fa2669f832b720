import { stat } from 'node:fs/promises';
import { z } from 'zod';
import { CisternError } from '../../shared/errors.ts';
import type { PrimaryDriver } from './driver.ts';
import { FILE_VOLUMES, openFilePool } from './file-pool.ts';
import { isPoolPath, POOL_PATH_WORDS } from './file-pool/paths.ts';

const SharedDirConfig = z.strictObject({
  path: z
    .string()
    .refine(isPoolPath, POOL_PATH_WORDS)
    .describe('folder, the same on every host, in a file system that you mount on all of them, such as /mnt/cluster/pool'),
});
type SharedDirConfig = z.infer<typeof SharedDirConfig>;

/** A folder that the operator mounts on every host: any file system that hosts share coherently, locks of files included. */
export const sharedDir: PrimaryDriver<SharedDirConfig> = {
  type: 'shared-dir',
  title: 'Folder that the hosts share',
  shared: true,
  config: SharedDirConfig,
  volumes: FILE_VOLUMES,
  async connect({ id, config: { path } }, { initialize }) {
    await refuseUnmounted(path);
    return openFilePool({ path, id, type: 'shared-dir', shared: true, initialize });
  },
};

/** Before the operator has mounted it, the folder is one of the host's own disk: what one host writes there no other sees. */
async function refuseUnmounted(path: string): Promise<void> {
  const [folder, system] = await Promise.all([path, '/'].map(place => stat(place))).catch((cause: unknown) => {
    throw new CisternError('POOL_UNAVAILABLE', `opening the pool folder ${path}: ${String(cause)}`, { cause });
  });
  if (folder!.dev === system!.dev)
    throw new CisternError('POOL_UNAVAILABLE', `opening the pool folder ${path}: nothing is mounted there`);
}
