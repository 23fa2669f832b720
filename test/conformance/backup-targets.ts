/** A real storage to test each backup driver against. A registered driver without one fails the suite. */
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startSshd } from '../servers/sshd.ts';

export interface BackupTarget extends AsyncDisposable {
  /** What a user would configure. */
  config: Record<string, unknown>;
  /** The folder that holds the objects, as this machine sees it: to damage what is at rest, and to look for leftovers. */
  root: string;
  /** The same storage with another root folder. */
  at(path: string): Record<string, unknown>;
}

export const backupTargets: Record<string, () => Promise<BackupTarget>> = {
  dir: async () => {
    const folder = await mkdtemp(join(tmpdir(), 'cistern-dir-'));
    const root = join(folder, 'root');
    await mkdir(root);
    const at = (path: string): Record<string, unknown> => ({ path });
    return { config: at(root), root, at, [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }) };
  },
  sftp: async () => {
    const sshd = await startSshd();
    const { host, port, user, privateKey, hostKey } = sshd;
    const at = (path: string): Record<string, unknown> => ({ host, port, user, privateKey, hostKey, path });
    return { config: at(sshd.path), root: sshd.path, at, [Symbol.asyncDispose]: () => sshd.stop() };
  },
};
