import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { wrapError } from '../../shared/errors.ts';

export interface Mount {
  target: string;
  /** What is mounted: a device, or `server:/export`. */
  source: string;
  /** File system type as the kernel names it, such as nfs4. */
  type: string;
  /** Of this mount and of its file system. */
  options: string[];
}

/** Reads the format of /proc/PID/mountinfo (proc_pid_mountinfo(5)): optional fields up to a hyphen, octal escapes in names. */
export function parseMountInfo(text: string): Mount[] {
  const mounts: Mount[] = [];
  for (const line of text.split('\n')) {
    const fields = line.split(' ');
    const hyphen = fields.indexOf('-', 6);
    const [, , , , target, options] = fields;
    const [type, source, superOptions] = fields.slice(hyphen + 1);
    if (hyphen < 0 || target === undefined || type === undefined || source === undefined) continue;
    const all = `${options},${superOptions ?? ''}`.split(',').filter(o => o !== '');
    mounts.push({ target: unescape(target), source: unescape(source), type, options: [...new Set(all)] });
  }
  return mounts;
}

/** The kernel escapes space, tab, newline, backslash and #: ASCII only, other bytes stand as they are. */
const unescape = (text: string): string =>
  text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));

async function table(pid: 'self' | '1'): Promise<Mount[]> {
  try {
    return parseMountInfo(await readFile(`/proc/${pid}/mountinfo`, 'utf8'));
  } catch (error) {
    throw wrapError(error, 'IO_ERROR', 'reading the mount table');
  }
}

/** What is mounted on exactly `path` (the uppermost, where mounts are stacked), as process `pid` sees it; 1 is the host itself. */
export async function mountAt(path: string, pid: 'self' | '1' = 'self'): Promise<Mount | undefined> {
  const target = resolve(path);
  return (await table(pid)).findLast(mount => mount.target === target);
}

/** File systems that the kernel can mount now; modules not loaded yet are not among them. */
export async function filesystems(): Promise<string[]> {
  try {
    const lines = (await readFile('/proc/filesystems', 'utf8')).trim().split('\n');
    return lines.map(line => line.split('\t')[1] ?? '').filter(name => name !== '');
  } catch (error) {
    throw wrapError(error, 'IO_ERROR', 'reading /proc/filesystems');
  }
}
