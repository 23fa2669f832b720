/** A real storage to test each backup driver against. A registered driver without one fails the suite. */
import { mkdir, mkdtemp, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { execa } from 'execa';
import { startSshd } from '../servers/sshd.ts';
import { rbdTarget } from './backup-rbd-target.ts';
import type { BackupTarget, Config, View } from './backup-target.ts';
import { S3_PART, startS3 } from './backup-s3.ts';
import { filesBelow, flipByte, PART, tempFolder } from './backup-image.ts';
import { startSwiftTarget } from './swift-target.ts';

export type { BackupTarget, View };

interface Kind {
  /** Of the driver, where the name is not the driver's alone: several storages may test one driver. */
  type?: string;
  /** Smallest part that the storage takes; 1 MiB unless told. */
  part?: number;
  /** A program that moves whole files where it can: zeros cross and lie there too. */
  tool?: string;
  /** It keeps its objects in a folder: its target has `root`. */
  folder?: true;
  start(): Promise<BackupTarget>;
}

export const backupTargets: Record<string, Kind> = {
  rbd: { part: 4 * 2 ** 20, start: rbdTarget },
  dir: {
    folder: true,
    start: async () => {
      const folder = await mkdtemp(join(tmpdir(), 'cistern-dir-'));
      const root = join(folder, 'root');
      await mkdir(root);
      const end = (): Promise<void> => rm(folder, { recursive: true, force: true });
      return folderTarget(root, path => ({ path }), end);
    },
  },
  s3: { part: S3_PART, start: startS3 },
  's3 by s3cmd': {
    type: 's3',
    tool: 's3cmd',
    part: S3_PART,
    start: () => startS3({ tool: 's3cmd' }),
  },
  sftp: { folder: true, start: () => startSftp() },
  'sftp by scp': { type: 'sftp', tool: 'scp', folder: true, start: () => startSftp({ tool: 'scp' }) },
  swift: { start: startSwiftTarget },
};

async function startSftp(more: Config = {}): Promise<BackupTarget> {
  const sshd = await startSshd();
  const { host, port, user, privateKey, hostKey } = sshd;
  return folderTarget(
    sshd.path,
    path => ({ host, port, user, privateKey, hostKey, path, ...more }),
    () => sshd.stop(),
  );
}

/** A storage that keeps its objects in a folder of this machine. */
function folderTarget(root: string, at: (path: string) => Config, end: () => Promise<void>): BackupTarget {
  return {
    config: at(root),
    root,
    missing: { config: at(join(root, 'nowhere')), words: /nowhere/ },
    locked: { config: at('/sys/kernel'), words: /\/sys\/kernel/ },
    small: async () => {
      const disk = await smallDisk();
      return {
        config: at(disk.path),
        files: () => filesBelow(disk.path),
        [Symbol.asyncDispose]: () => disk[Symbol.asyncDispose](),
      };
    },
    files: () => filesBelow(root),
    readObject: path => readFile(join(root, path)),
    writeObject: async (path, body) => {
      await mkdir(dirname(join(root, path)), { recursive: true });
      await writeFile(join(root, path), body);
    },
    stored: async path => (await stat(join(root, path))).blocks * 512,
    damage: (path, offset) => flipByte(join(root, path), offset),
    shorten: (path, size) => truncate(join(root, path), size),
    [Symbol.asyncDispose]: end,
  };
}

/** A file system of four parts in memory; takes root. */
async function smallDisk(): Promise<AsyncDisposable & { path: string }> {
  const folder = await tempFolder();
  await execa('mount', ['-t', 'tmpfs', '-o', `size=${4 * PART}`, 'tmpfs', folder.path]);
  return {
    path: folder.path,
    [Symbol.asyncDispose]: async () => {
      await execa('umount', ['--lazy', folder.path]); // a server whose client has just gone may hold a file for a moment more
      await rm(folder.path, { recursive: true, force: true });
    },
  };
}
