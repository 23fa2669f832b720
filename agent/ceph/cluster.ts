/** A Ceph cluster as its programs are told of it: by a configuration file and a keyring that only this user can read. */
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { CisternError } from '../../shared/errors.ts';
import { run } from '../host/run.ts';
import { objectNamespace, poolOf, type CephConfig } from './config.ts';
import { cephError } from './errors.ts';
import { fullOr } from './full.ts';

/** No listing of names is longer: some 300,000 objects. */
const MAX_OUTPUT = 32 * 2 ** 20;
const CALL_SECONDS = 45;
const PREFIX = 'cistern-rbd-';
/** Characters of a folder in which sockets may lie: a socket's whole path has 107 (unix(7)). */
const SOCKET_ROOM = 80;
/** Where folders of ours may have been left. */
const PLACES = [tmpdir(), '/tmp'];

export interface Cluster {
  config: CephConfig;
  /** The RADOS namespace of small objects. */
  objects: string;
  /** Holds the configuration, and short-lived files of calls. */
  folder: string;
  /** A folder for sockets. */
  sockets: string;
  /** Path of the ceph.conf. */
  conf: string;
  /** For messages: `POOL/NAMESPACE at MONITORS`. */
  name: string;
  /** Runs a program of Ceph; returns what it said on stdout. Throws STORE_* errors, OBJECT_MISSING or TOOL_MISSING. */
  call(program: 'rbd' | 'rados' | 'ceph', args: readonly string[], options?: { seconds?: number }): Promise<string>;
  /** STORE_FULL for a write that was not taken in time because the pool is full; other errors as they are. */
  fullOr<E>(error: E): Promise<E | CisternError>;
  close(): Promise<void>;
}

/** `what` names the RADOS namespace of small objects. */
export async function openCluster(config: CephConfig, what?: string): Promise<Cluster> {
  await sweep();
  const name = `${PREFIX}${process.pid}-`;
  const folder = await mkdtemp(join(tmpdir(), name));
  const sockets = folder.length <= SOCKET_ROOM ? folder : await mkdtemp(join('/tmp', name));
  const closed = new AbortController();
  const close = async (): Promise<void> => {
    closed.abort();
    for (const path of [folder, sockets]) await rm(path, { recursive: true, force: true });
  };
  const title = `${poolOf(config)} at ${config.monitors}`;
  const conf = join(folder, 'ceph.conf');
  try {
    await writeFile(join(folder, 'keyring'), `[client.${config.user}]\n\tkey = ${config.key}\n`, { mode: 0o600, flag: 'wx' });
    await writeFile(conf, configuration(config, folder), { mode: 0o600, flag: 'wx' });
  } catch (error) {
    await close();
    throw error;
  }
  const { pool, user } = config;
  const call = async (program: string, args: readonly string[], seconds: number): Promise<string> => {
    const words = args
      .filter(arg => !arg.startsWith('-'))
      .slice(0, 6)
      .join(' ')
      .replaceAll('+', '/'); // names are paths
    const tried = `${program} ${words} in ${title}`;
    const all = ['--conf', conf, '--id', user, ...args];
    try {
      return (await run(program, all, { timeoutSeconds: seconds, maxOutput: MAX_OUTPUT, signal: closed.signal })).stdout;
    } catch (error) {
      if (!(error instanceof CisternError)) throw error;
      if (error.code === 'TOOL_FAILED') throw cephError(tried, typeof error.cause === 'string' ? error.cause : error.message);
      if (error.code === 'TIMEOUT')
        throw new CisternError('STORE_UNREACHABLE', `${tried}: no answer within ${seconds} s`, { cause: error });
      throw error;
    }
  };
  return {
    config,
    objects: objectNamespace(config, what),
    folder,
    sockets,
    conf,
    name: title,
    close,
    call: async (program, args, { seconds = CALL_SECONDS } = {}) => {
      try {
        return await call(program, args, seconds);
      } catch (error) {
        throw await fullOr(error, pool, () => call('ceph', ['osd', 'dump', '--format', 'json'], CALL_SECONDS));
      }
    },
    fullOr: error => fullOr(error, pool, () => call('ceph', ['osd', 'dump', '--format', 'json'], CALL_SECONDS)),
  };
}

/** Time-outs in seconds. Without them a cluster that is away is waited for for minutes, and a full one for ever. */
const configuration = ({ monitors }: CephConfig, folder: string): string => `[global]
mon_host = ${monitors}
keyring = ${join(folder, 'keyring')}
client_mount_timeout = 10
rados_mon_op_timeout = 10
rados_osd_op_timeout = 15
log_file =
log_to_stderr = true
admin_socket =
[client]
rbd_cache = false
`;

/** Removes the folders of processes that died: there are keys in them. */
async function sweep(): Promise<void> {
  for (const path of await leftIn(PLACES)) {
    const name = basename(path);
    const pid = name.startsWith(PREFIX) ? Number(name.slice(PREFIX.length).split('-')[0]) : NaN;
    if (Number.isSafeInteger(pid) && !alive(pid)) await rm(path, { recursive: true, force: true }).catch(() => undefined); // another user's
  }
}

async function leftIn(places: readonly string[]): Promise<string[]> {
  const found = await Promise.all(places.map(async place => (await readdir(place)).map(name => join(place, name))));
  return [...new Set(found.flat())];
}

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH';
  }
}
