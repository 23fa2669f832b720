import { randomBytes } from 'node:crypto';
import { posix } from 'node:path';
import { CisternError } from '../../shared/errors.ts';
import type { RangeEnd, Sink, Source, ToolLane } from '../transfer/ends.ts';
import { PART_SIZE } from '../transfer/parts.ts';
import type { BackupDriver, BackupStore } from './driver.ts';
import { segmentsOf } from './paths.ts';
import { probeName, staleProbes } from './probe.ts';
import { openChannel } from './sftp/channel.ts';
import { address, SftpConfig } from './sftp/config.ts';
import { connectionError } from './sftp/errors.ts';
import { fullOr } from './sftp/full.ts';
import { control, type Control } from './sftp/control.ts';
import {
  freeSpace,
  makeFolder,
  publishFile,
  readFile,
  removeFile,
  listFolder,
  removeFolder,
  statFile,
  writeFile,
} from './sftp/files.ts';
import { beginPartial } from './sftp/partial.ts';
import { scpDownload, scpUpload } from './sftp/scp.ts';
import type { ObjectData } from './sftp/thread.ts';

/** A folder on an SSH server. Control goes through ssh2-sftp-client, the bytes of images through OpenSSH, which is five times as fast. */
export const sftp: BackupDriver<SftpConfig> = {
  type: 'sftp',
  title: 'Folder on an SSH server (SFTP)',
  shared: true,
  config: SftpConfig,
  connect: ({ config }, signal) => {
    signal.throwIfAborted();
    return Promise.resolve(openStore(config));
  },
};

function openStore(config: SftpConfig): BackupStore {
  const link = control(config);
  const nameOf = (path: string): string => `sftp ${address(config)}:${posix.join(config.path, path)}`;
  const fileOf = (path: string): string => posix.join(config.path, ...segmentsOf(path));
  const makeParents = (path: string): Promise<void> => makeFolder(link, config.path, segmentsOf(path).slice(0, -1));
  /** Work that puts `wanted` bytes there. */
  const writing = <T>(wanted: number, work: Promise<T>): Promise<T> =>
    work.catch(async (error: unknown) => {
      throw await fullOr(error, link, config.path, wanted);
    });

  const source = async (path: string): Promise<Source> => {
    const file = fileOf(path);
    const stat = await statFile(link, file);
    if (!stat.isFile()) throw new CisternError('OBJECT_MISSING', `looking at ${nameOf(path)}: it is not a file`);
    const name = nameOf(path);
    return {
      name,
      size: stat.size,
      ranges: signal => rangeEnd(config, link, file, name, signal),
      ...(config.tool && { tool: scpDownload({ config, path: file, name }) }),
    };
  };
  const sink = async (path: string, size: number, partSize: number): Promise<Sink> => {
    const file = fileOf(path);
    const partial = partialOf(file);
    await writing(0, makeParents(path));
    const journal = await writing(0, beginPartial(link, partial, { size, partSize, tag: '' })).catch(orRemove(link, partial));
    // what scp brings is begun anew each time: a journal would tell of another attempt
    let whole = false;
    const abort = (): Promise<void> => journal.remove().then(() => removeFile(link, partial));
    const byScp = scpUpload({ config, path: partial, name: nameOf(path) }, link, async () => {
      whole = true;
      await journal.remove();
    });
    const tool: ToolLane = {
      ...byScp,
      run: (from, options) => writing(size, byScp.run(from, options)),
    };
    return {
      name: nameOf(path),
      ...(config.tool && { tool }),
      kept: journal.kept,
      arrived: journal.arrived,
      ranges: signal => rangeEnd(config, link, partial, nameOf(path), signal),
      flush: () => writing(0, journal.flush()),
      publish: () =>
        writing(
          0,
          journal.remove().then(() => publishFile(link, partial, file)),
        ).catch(orRemove(link, partial)),
      abort,
      park: () => (whole ? abort() : Promise.resolve()),
    };
  };
  return {
    source,
    sink,
    read: async (path, limit) => readFile(link, fileOf(path), limit),
    write: async (path, body) => {
      const file = fileOf(path);
      const partial = partialOf(file);
      await writing(0, makeParents(path));
      await removeFile(link, partial);
      const publishing = writeFile(link, partial, body).then(() => publishFile(link, partial, file));
      await writing(body.length, publishing).catch(orRemove(link, partial));
    },
    list: async folder => listFolder(link, fileOf(folder)),
    remove: async folder => removeFolder(link, fileOf(folder)),
    check: () => writing(0, check(config, link)),
    capacity: async () => {
      const space = await freeSpace(link, config.path);
      return space === undefined ? null : { total: space.total, available: space.available };
    },
    close: () => link.close(),
  };
}

/** One name for all attempts at an object: the next one goes on with it, or replaces it. */
const partialOf = (file: string): string => `${file}.partial-`;

/** Removes a partial object after a failure, which it throws again; a failure to remove it is told with it. */
function orRemove(link: Control, partial: string): (error: unknown) => Promise<never> {
  return async error => {
    try {
      await removeFile(link, partial);
    } catch (second) {
      if (error instanceof CisternError) {
        throw new CisternError(error.code, `${error.message}; removing ${partial} failed too: ${(second as Error).message}`, {
          cause: error,
        });
      }
    }
    throw error;
  };
}

async function rangeEnd(config: SftpConfig, link: Control, path: string, name: string, signal: AbortSignal): Promise<RangeEnd> {
  const channel = await openChannel(config, signal);
  const data: ObjectData = { channel: channel.data, path, name };
  return {
    module: new URL('./sftp/thread.ts', import.meta.url).href,
    data,
    wake: () => channel.kill(),
    explain: async error => {
      if (error.code === 'STORE_UNREACHABLE') {
        const words = await channel.lastWords();
        return words ? connectionError(error.message, words, error) : error;
      }
      return fullOr(error, link, config.path, PART_SIZE);
    },
    release: () => channel.close(),
  };
}

async function check(config: SftpConfig, link: Control): Promise<void> {
  const stat = await statFile(link, config.path).catch((error: unknown) => {
    if (!(error instanceof CisternError) || error.code !== 'OBJECT_MISSING') throw error;
    throw new CisternError('STORE_CONFIG', `opening the folder ${config.path} at ${address(config)}: it is not there`, {
      cause: error,
    });
  });
  if (!stat.isDirectory())
    throw new CisternError('STORE_CONFIG', `opening the folder ${config.path} at ${address(config)}: it is not a folder`);
  const probe = posix.join(config.path, probeName());
  const body = randomBytes(64);
  try {
    await writeFile(link, probe, body);
    const back = await readFile(link, probe, body.length);
    if (!back.equals(body)) throw new CisternError('IO_ERROR', `reading a probe back from ${probe}: it is not what was written`);
  } finally {
    await removeFile(link, probe);
  }
  for (const name of staleProbes(await listFolder(link, config.path))) await removeFile(link, posix.join(config.path, name));
  // the bytes of images go another way: that must work too
  const channel = await openChannel(config, AbortSignal.timeout(60_000));
  await channel.close();
}
