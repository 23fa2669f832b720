import { mkdir, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { CisternError, wrapError } from '../../shared/errors.ts';
import { mountAt, mountNfs, unmount } from '../host/mount.ts';
import { isStale } from '../host/no-room.ts';
import type { PrimaryDriver } from './driver.ts';
import { FILE_VOLUMES, openFilePool } from './file-pool.ts';
import { checkId } from './file-pool/paths.ts';
import { inTurn } from './in-turn.ts';

const NfsConfig = z.strictObject({
  server: z.string().min(1).max(253).describe('host name or address of the NFS server'),
  export: z.string().regex(/^\//, 'an absolute path').max(1024).describe('exported folder, such as /srv/pool'),
  version: z
    .enum(['3', '4', '4.0', '4.1', '4.2'])
    .default('4.2')
    .describe('NFS version; 4 lets client and server agree on a minor one'),
  options: z
    .array(z.string().max(100))
    .max(30)
    .default([])
    .describe('options of nfs(5) from a list of allowed ones, such as "hard" or "nconnect=4"'),
});
type NfsConfig = z.output<typeof NfsConfig>;

/** An NFS export, mounted on every host of its clusters below the agent's mount folder. All of them see one pool. */
export const nfs: PrimaryDriver<NfsConfig> = {
  type: 'nfs',
  title: 'NFS export',
  shared: true,
  config: NfsConfig,
  volumes: FILE_VOLUMES,
  async connect({ id, config }, { initialize, signal, mountDir }) {
    const target = join(mountDir, checkId(id));
    return inTurn(target, async () => {
      const open = () => openFilePool({ path: target, id, type: 'nfs', shared: true, initialize });
      let mountedHere = await mount(target, config, signal);
      try {
        return await open().catch(async (error: unknown) => {
          if (mountedHere || !(error instanceof Error && isStale(error.cause))) throw error;
          // the server has another folder there now: the kernel never asks for it by name again while the old one is mounted
          await unmount(target, { lazy: true, signal });
          mountedHere = await mount(target, config, signal);
          return open();
        });
      } catch (error) {
        if (mountedHere) await undo(target, error);
        throw error;
      }
    });
  },
  async disconnect({ id }, { signal, mountDir }) {
    const target = join(mountDir, checkId(id));
    await inTurn(target, async () => {
      await unmount(target, { signal });
      await removePoint(target, undefined);
    });
  },
};

/** Mounts the export unless it is mounted; true where it was not. */
async function mount(target: string, config: NfsConfig, signal: AbortSignal): Promise<boolean> {
  await mkdir(target, { recursive: true, mode: 0o755 }).catch((error: NodeJS.ErrnoException) => {
    // a mount whose server is gone: mkdir says EEXIST, or cannot look at it
    if (error.code !== 'EEXIST' && !isStale(error)) throw wrapError(error, 'MOUNT_FAILED', `making the mount point ${target}`);
  });
  const before = await mountAt(target);
  try {
    await mountNfs({ ...config, target, signal });
  } catch (error) {
    if (before === undefined) await removePoint(target, error);
    throw error;
  }
  return before === undefined;
}

/** What was mounted in vain goes away again; where that fails too, both failures are told. */
async function undo(target: string, first: unknown): Promise<void> {
  try {
    await unmount(target);
    await removePoint(target, first);
  } catch (second) {
    const [a, b] = [first, second].map(e => (e instanceof Error ? e.message : String(e)));
    throw new CisternError(
      first instanceof CisternError ? first.code : 'MOUNT_FAILED',
      `${a}; and unmounting it again failed too: ${b}`,
      { cause: first },
    );
  }
}

/** An empty mount point is of no use. One that is not empty is not ours to remove, nor worth hiding `first` for. */
async function removePoint(target: string, first: unknown): Promise<void> {
  await rmdir(target).catch((error: NodeJS.ErrnoException) => {
    if (first === undefined && !['ENOENT', 'ENOTEMPTY', 'EBUSY'].includes(error.code ?? ''))
      throw wrapError(error, 'IO_ERROR', `removing the mount point ${target}`);
  });
}
