import type { Stats } from 'node:fs';
import { chmod, chown, lstat } from 'node:fs/promises';
import { CisternError, wrapError } from '../../shared/errors.ts';
import { type CageFiles, type CageUser, cageUser, cageWords } from './cage-words.ts';
import { holdFile } from './held.ts';
import { run } from './run.ts';

/** Processes and threads of all cages together (they share a user): four conversions at once have some 70 threads each. */
export const CAGE_PROCESSES = 512;

/** Files for a program, and whether it stays whom the agent is. */
export type Cage = CageFiles & { own?: boolean };

/**
 * Runs a program that reads hostile bytes where it can reach nothing but its files: `work` gets the words that `run` takes as `within`.
 * It is another user than root, to whom the files are lent meanwhile; with `own` it stays root, with no privilege but to open its files.
 * Where the kernel allows no cage (see `cages`) they are none, and only the limits of `run` hold. TOOL_MISSING without bubblewrap.
 */
export async function caged<T>(
  program: string,
  { own = false, ...files }: Cage,
  signal: AbortSignal | undefined,
  work: (within: string[]) => Promise<T>,
): Promise<T> {
  if (!(await cages(signal)).whole) return work([]);
  const user = await cageUser(own);
  const within = await cageWords(program, files, user);
  await using _lent = await lend(files, user);
  return await work(within);
}

/** Whether this host can build cages, in words for its operator. */
export interface Cages {
  whole: boolean;
  detail: string;
}

let known: { cages: Cages; until: number } | undefined;

/**
 * Builds one around a held file and looks. What was found is believed for good where it holds, and for a minute where the kernel
 * refuses it. Throws what bwrap came to where the kernel would have let it: an old or broken one is no reason to do without.
 */
export async function cages(signal?: AbortSignal): Promise<Cages> {
  if (known !== undefined && known.until > performance.now()) return known.cages;
  const user = await cageUser();
  try {
    using file = await holdFile(import.meta.filename);
    const within = await cageWords('true', { reads: [file.path] }, user);
    await run('true', [], { within, limits: { processes: CAGE_PROCESSES }, signal, timeoutSeconds: 30 });
    const detail = `no network, no other files, user ${user.uid}`;
    known = { cages: { whole: true, detail }, until: Infinity };
  } catch (error) {
    const refusal = failed(error) ? await kernelRefuses(user, signal) : undefined;
    if (refusal === undefined) throw error;
    known = {
      cages: { whole: false, detail: `limits on memory, time and size only: ${refusal}` },
      until: performance.now() + 60_000,
    };
  }
  return known.cages;
}

const failed = (error: unknown): error is CisternError => error instanceof CisternError && error.code === 'TOOL_FAILED';

/** What the kernel says where it has none of a cage's namespaces for this user, asked without bwrap; undefined where it has them. */
async function kernelRefuses({ root }: CageUser, signal: AbortSignal | undefined): Promise<string | undefined> {
  const spaces = ['--mount', '--pid', '--ipc', '--uts', '--net', ...(root ? [] : ['--user', '--map-root-user'])];
  try {
    await run('unshare', [...spaces, '--fork', '--', 'true'], { signal, timeoutSeconds: 30 });
    return undefined;
  } catch (error) {
    if (!failed(error)) throw error;
    return String(error.cause).trim().split('\n').at(-1);
  }
}

/**
 * Lets the user of a cage at these files, and takes them back when disposed of: read by its group, written as its owner. The folders
 * above stay closed to it: it sees the files because bwrap puts them where it looks.
 */
export async function lend({ reads = [], writes = [] }: CageFiles, { root, uid, gid }: CageUser): Promise<AsyncDisposable> {
  const lent: [path: string, before: Stats][] = [];
  const give = async (path: string, owner: number | undefined, mode: number): Promise<void> => {
    const before = await lstat(path);
    lent.push([path, before]);
    await chown(path, owner ?? before.uid, gid);
    await chmod(path, mode);
  };
  const takeBack = async (): Promise<void> => {
    for (const [path, { uid: owner, gid: group, mode }] of lent.splice(0)) {
      await chown(path, owner, group);
      await chmod(path, mode & 0o7777);
    }
  };
  try {
    if (root && uid !== 0) {
      for (const path of reads) await give(path, undefined, 0o640);
      for (const path of writes) await give(path, uid, 0o600);
    }
  } catch (error) {
    await takeBack();
    throw wrapError(error, 'IO_ERROR', `lending ${[...reads, ...writes].join(', ')} to user ${uid}`);
  }
  return { [Symbol.asyncDispose]: takeBack };
}
