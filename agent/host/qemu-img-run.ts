import { isAbsolute, normalize } from 'node:path';
import { CisternError } from '../../shared/errors.ts';
import type { SourceFormat } from '../../shared/model.ts';
import { type Cage, caged } from './cage.ts';
import { shown } from './held.ts';
import { run, type RunOptions, type RunResult } from './run.ts';

/** A disk that qemu-img is to open: an absolute path and the format that it has, which is never left to be guessed. */
export interface QemuDisk {
  path: string;
  /** A path of something held (held.ts) that is opened in its place; `path` is then for messages. */
  held?: string;
  /** `path` is the socket of an NBD server of this host; the format is that of what it shows. */
  nbd?: true | undefined;
  format: SourceFormat;
  /**
   * What it stands on (null: on nothing), whatever its header names: whoever can write to a disk must not choose what is read through
   * it. Left out, the header is believed, and what it names is not found in a cage. qcow2 only.
   */
  backing?: QemuDisk | null | undefined;
}

/**
 * The one place that makes a file name for qemu to open: a JSON document, so that neither commas nor colons nor a header can make
 * it mean another file or format. (qemu: "json:" pseudo-protocol, docs/system/qemu-block-drivers.)
 */
export function diskName(disk: QemuDisk): string {
  return `json:${JSON.stringify(blockNode(disk))}`;
}

/** Every file that qemu opens for a disk whose backing is told. */
export function filesOf({ path, held = path, format, backing }: QemuDisk): string[] {
  return backing && format === 'qcow2' ? [plainPath(held), ...filesOf(backing)] : [plainPath(held)];
}

interface BlockNode {
  driver: SourceFormat;
  file: { driver: 'file'; filename: string } | { driver: 'nbd'; server: { type: 'unix'; path: string } };
  backing?: BlockNode | null;
}

function blockNode({ path, held = path, nbd, format, backing }: QemuDisk): BlockNode {
  const file: BlockNode['file'] = nbd
    ? { driver: 'nbd', server: { type: 'unix', path: plainPath(held) } }
    : { driver: 'file', filename: plainPath(held) };
  const node: BlockNode = { driver: format, file };
  if (backing === undefined || format !== 'qcow2') return node;
  return { ...node, backing: backing && blockNode(backing) };
}

/** A path where qemu-img creates a file. It takes no JSON there, but a path that starts with a slash is always just a path. */
export function plainPath(path: string): string {
  if (isAbsolute(path) && normalize(path) === path && !path.includes('\0')) return path;
  throw new CisternError('IO_ERROR', `naming a file for qemu-img: "${path}" is not a normal absolute path`);
}

const LOCKED = /Failed to get (?:shared )?"[\w ]+" lock|Is another process using/;
const FULL = /No space left on device|Disk quota exceeded/;
const BROKEN = /Input\/output error/;

/** What qemu-img may use unless its caller says otherwise: no disk it is shown can make it eat the host. */
const LIMITS = { addressSpace: 4 * 2 ** 30 };

/** An argument with names in the place of what is held; a JSON document stays one. */
const named = (arg: string): string =>
  arg.startsWith('json:')
    ? `json:${JSON.stringify(JSON.parse(arg.slice(5), (_, value: unknown) => (typeof value === 'string' ? shown(value) : value)))}`
    : shown(arg);

/**
 * qemu-img with limits, in a cage with the files that it opens (it needs none to make a file); its words about locks and full disks
 * become VOLUME_IN_USE and POOL_FULL, those about a disk that fails IO_ERROR, which name `about`.
 */
export async function qemuImg(args: readonly string[], about: string, options: RunOptions & { cage?: Cage }): Promise<RunResult> {
  const { cage, ...how } = options;
  const limits = { ...LIMITS, ...how.limits };
  try {
    if (cage === undefined) return await run('qemu-img', args, { ...how, limits });
    return await caged('qemu-img', cage, how.signal, within =>
      // inside, what is held lies where its name says
      run('qemu-img', within.length > 0 ? args.map(named) : args, { ...how, limits, within }),
    );
  } catch (error) {
    if (!(error instanceof CisternError) || error.code !== 'TOOL_FAILED') throw error;
    const said = String(error.cause);
    const locked = /Is another process using the image \[(.+)\]\?/.exec(said)?.[1];
    if (LOCKED.test(said))
      throw new CisternError('VOLUME_IN_USE', `qemu-img ${args[0]} on ${about}: another program holds ${locked ?? about} open`, {
        cause: error,
      });
    if (FULL.test(said))
      throw new CisternError('POOL_FULL', `qemu-img ${args[0]} on ${about}: ${said.trim().split('\n').at(-1)}`, { cause: error });
    if (BROKEN.test(said))
      throw new CisternError('IO_ERROR', `qemu-img ${args[0]} on ${about}: ${said.trim().split('\n').at(-1)}`, { cause: error });
    throw error;
  }
}

let known: { version: string; until: number } | undefined;

/** The version of the installed qemu-img, such as 7.2.22. Asked again after a minute: it may be upgraded under a running agent. */
export async function version(signal?: AbortSignal): Promise<string> {
  if (known !== undefined && known.until > performance.now()) return known.version;
  const { stdout } = await run('qemu-img', ['--version'], { signal, timeoutSeconds: 30 });
  const found = /version (\d+\.\d+(?:\.\d+)?)/.exec(stdout)?.[1];
  if (found === undefined) throw new CisternError('TOOL_FAILED', `qemu-img --version: no version in "${stdout.slice(0, 200)}"`);
  known = { version: found, until: performance.now() + 60_000 };
  return found;
}

const atLeast = (version: string, major: number, minor: number): boolean => {
  const [a = 0, b = 0] = version.split('.').map(Number);
  return a > major || (a === major && b >= minor);
};

/** Sub-clusters (`extended_l2=on`) came with qemu 5.2. */
export const supportsExtendedL2 = (version: string): boolean => atLeast(version, 5, 2);

/** `compression_type=zstd` came with qemu 5.1. */
export const supportsZstd = (version: string): boolean => atLeast(version, 5, 1);
