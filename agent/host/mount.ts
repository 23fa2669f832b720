import { isAbsolute, normalize } from 'node:path';
import { isIPv6 } from 'node:net';
import { CisternError } from '../../shared/errors.ts';
import { mountOptions } from './mount-options.ts';
import { filesystems, mountAt, type Mount } from './mount-table.ts';
import { run } from './run.ts';

export { filesystems, mountAt, type Mount } from './mount-table.ts';

export interface NfsMount {
  /** Host name, IPv4 or IPv6 address (without brackets). */
  server: string;
  /** Absolute path on the server. */
  export: string;
  version: '3' | '4' | '4.0' | '4.1' | '4.2';
  /** Options of nfs(5) from the allow-list in mount-options.ts. */
  options: readonly string[];
  /** An existing folder. */
  target: string;
  signal?: AbortSignal | undefined;
}

/** Long enough for a server that is just restarting; a worker must not wait for a dead one for ever. In seconds. */
const DEADLINE = 90;

/**
 * Mounts an NFS export with nosuid, nodev and noexec; does nothing where it is mounted already. Throws POOL_CONFIG,
 * MOUNT_OPTION_REFUSED, POOL_IDENTITY (something else is mounted there), KERNEL_LACKS_NFS, MOUNT_FAILED, TOOL_MISSING, TIMEOUT.
 */
export async function mountNfs(spec: NfsMount): Promise<void> {
  const source = nfsSource(spec.server, spec.export);
  const options = `vers=${spec.version},${mountOptions(spec.options)}`;
  const target = checkedTarget(spec.target);
  if (isMounted(await mountAt(target), source, target)) return;
  try {
    // mount.nfs takes its two operands first and knows no "--"; neither can begin with a hyphen.
    await run('mount.nfs', [source, target, '-o', options], { signal: spec.signal, timeoutSeconds: DEADLINE });
  } catch (error) {
    // A cancel may come just after the kernel has mounted it.
    if ((await mountAt(target))?.source === source) await unmount(target);
    throw await explained(error, spec, source);
  }
  if (!isMounted(await mountAt(target), source, target))
    throw new CisternError(
      'MOUNT_FAILED',
      `mounting ${source} on ${target}: mount.nfs reported success, but the mount table does not show it`,
    );
  await checkHostSees(source, target);
}

/** Takes a mount away; does nothing where none is. `lazy` detaches it although programs use it. IN_USE where they do, else MOUNT_FAILED. */
export async function unmount(path: string, options: { lazy?: boolean; signal?: AbortSignal } = {}): Promise<void> {
  const target = checkedTarget(path);
  if ((await mountAt(target)) === undefined) return;
  // Without canonicalizing, umount need not ask the (perhaps dead) server about the path.
  const args = ['--no-canonicalize', ...(options.lazy === true ? ['--lazy'] : []), '--', target];
  try {
    await run('umount', args, { signal: options.signal, timeoutSeconds: DEADLINE });
  } catch (error) {
    if (!(error instanceof CisternError) || error.code !== 'TOOL_FAILED') throw error;
    const busy = /busy/.test(error.message);
    throw new CisternError(busy ? 'IN_USE' : 'MOUNT_FAILED', `unmounting ${target}: ${error.message}`, {
      cause: error,
      ...(busy ? { action: 'Stop the programs that use it (fuser -vm PATH shows them), then try again.' } : {}),
    });
  }
}

/** `server:/export` as mount.nfs takes it and as the mount table shows it. POOL_CONFIG where a part could mean anything else. */
export function nfsSource(server: string, path: string): string {
  const name = /^(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$/;
  if (!name.test(server) && !isIPv6(server))
    throw new CisternError('POOL_CONFIG', `NFS server ${JSON.stringify(server)} is no host name and no address`);
  if (!/^\/[^\s,\\\x00-\x1f\x7f]{0,1023}$/.test(path))
    throw new CisternError(
      'POOL_CONFIG',
      `NFS export ${JSON.stringify(path)} must begin with / and hold no space, comma, backslash or control character`,
    );
  return `${isIPv6(server) ? `[${server}]` : server}:${path.replace(/(?<=.)\/+$/, '')}`;
}

/** Whether `found` is the mount that is wanted; another one there is POOL_IDENTITY. */
function isMounted(found: Mount | undefined, source: string, target: string): boolean {
  if (found === undefined) return false;
  if (/^nfs4?$/.test(found.type) && found.source.replace(/(?<=[^:])\/+$/, '') === source) return true;
  throw new CisternError('POOL_IDENTITY', `mounting ${source} on ${target}: ${found.source} (${found.type}) is mounted there`);
}

function checkedTarget(path: string): string {
  if (isAbsolute(path) && normalize(path) === path && path !== '/') return path.replace(/\/$/, '');
  throw new CisternError('POOL_CONFIG', `mount point "${path}" is not a normal absolute path`);
}

/** What mount.nfs said, as what it means. */
async function explained(error: unknown, spec: NfsMount, source: string): Promise<unknown> {
  if (!(error instanceof CisternError) || error.code !== 'TOOL_FAILED') return error;
  const type = spec.version === '3' ? 'nfs' : 'nfs4';
  const tried = `mounting ${source} on ${spec.target} with NFS version ${spec.version}`;
  if (!(await filesystems()).includes(type) && (await kernelRefuses(type, spec.target)))
    return new CisternError('KERNEL_LACKS_NFS', `${tried}: the kernel knows no file system ${type}`, { cause: error });
  return new CisternError('MOUNT_FAILED', `${tried}: ${error.message}`, { cause: error });
}

/**
 * Asks the kernel itself, which loads its module where it has one: a mount of nothing fails with "unknown filesystem type" where
 * it cannot, with "wrong fs type" where it can. mount.nfs would speak to the server first and report that instead.
 */
async function kernelRefuses(type: string, target: string): Promise<boolean> {
  const { stderr } = await run('mount', ['--internal-only', '-t', type, '--', 'none', target], {
    timeoutSeconds: 30,
    accept: [1, 2, 4, 8, 16, 32, 64],
  });
  return /unknown filesystem type|No such device/.test(stderr);
}

/** A service with a mount namespace of its own mounts for itself alone: VMs, which run outside, would see an empty folder. */
async function checkHostSees(source: string, target: string): Promise<void> {
  if ((await mountAt(target, '1'))?.source !== undefined) return;
  await unmount(target);
  throw new CisternError('MOUNT_FAILED', `mounting ${source} on ${target}: only the agent sees the mount, the host does not`, {
    action:
      'Run the agent in the mount namespace of the host: no ProtectSystem, PrivateTmp or PrivateMounts in its systemd unit.',
  });
}
