import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from '../../shared/log.ts';
import { spoolError } from '../host/spool-error.ts';

/** What SIGKILL does not end within this is blocked in the kernel, most likely by a storage that does not answer. */
const END_MS = 5000;

const folderOf = (stateDir: string): string => resolve(stateDir, 'tmp');

/**
 * A new folder for the temporary files of one worker and its children, as TMPDIR: keys of ssh lie there, and a worker that is killed
 * cannot remove them. It is also the mark by which a later agent knows them all.
 */
export function makeWorkerFolder(stateDir: string): string {
  try {
    mkdirSync(folderOf(stateDir), { recursive: true, mode: 0o700 });
    return mkdtempSync(join(folderOf(stateDir), 'worker-'));
  } catch (error) {
    throw spoolError(error, `making a worker's folder in ${folderOf(stateDir)}`);
  }
}

/**
 * Ends what workers of an agent that died still do, and removes their temporary files. To be called by the agent that has the lock of
 * the folder, before it takes work: an orphan that cleans up after itself would remove what the same task, sent again, publishes.
 */
export async function endOrphans(stateDir: string, log: Logger): Promise<void> {
  const deadline = performance.now() + END_MS;
  const mark = `TMPDIR=${folderOf(stateDir)}/worker-`;
  for (let left = marked(mark); left.length > 0; left = marked(mark)) {
    if (performance.now() > deadline) {
      log.error({ pids: left }, 'processes of an earlier run do not end: they are blocked in the kernel');
      break;
    }
    for (const pid of left) kill(pid);
    await delay(10);
  }
  rmSync(folderOf(stateDir), { recursive: true, force: true });
}

/** Processes with such a variable in their environment; those of other users, and those that are only waited for, show none. */
function marked(mark: string): number[] {
  const pids = readdirSync('/proc').filter(name => /^\d+$/.test(name));
  return pids.map(Number).filter(pid => pid !== process.pid && environmentOf(pid).some(entry => entry.startsWith(mark)));
}

function environmentOf(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0');
  } catch {
    return []; // it has ended meanwhile, or is another user's
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
