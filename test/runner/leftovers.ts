import { readFileSync, readdirSync, readlinkSync } from 'node:fs';

export interface Leftover {
  /** Set for processes. */
  pid?: number;
  what: string;
}

/** How a test file and all that it starts can be told from the rest of the machine. */
export interface Mark {
  /** Its session: the file's process is started as leader of one. */
  session: number;
  /** Its own folder for temporary files. */
  folder: string;
}

/** Processes that a test file started and that still live, and mounts below its folder. Reads /proc, changes nothing. */
export const findLeftovers = (mark: Mark): Leftover[] => [...leftProcesses(mark), ...leftMounts(mark)];

/**
 * A process may leave its session (daemons do), and may overwrite its environment (sshd does, for its title): any one trace is
 * enough. Traces: the session, TMPDIR in the environment, and the folder in the arguments or as the working folder.
 */
function leftProcesses({ session, folder }: Mark): Leftover[] {
  const pids = readdirSync('/proc').filter(name => /^\d+$/.test(name));
  return pids.flatMap(name => {
    const pid = Number(name);
    if (pid === process.pid) return [];
    const args = readOr(`/proc/${pid}/cmdline`).split('\0').join(' ').trim();
    const [state, , , sid] = readOr(`/proc/${pid}/stat`)
      .replace(/^.*\) /s, '')
      .split(' ');
    if (state === undefined || state === 'Z' || state === '') return [];
    const ours =
      Number(sid) === session ||
      args.includes(folder) ||
      readOr(`/proc/${pid}/environ`).includes(`TMPDIR=${folder}`) ||
      cwd(pid).startsWith(folder);
    return ours ? [{ pid, what: `process ${pid}: ${args || readOr(`/proc/${pid}/comm`).trim()}` }] : [];
  });
}

function leftMounts({ folder }: Mark): Leftover[] {
  const points = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map(line => line.split(' ')[4] ?? '');
  return points.filter(point => point.startsWith(`${folder}/`)).map(point => ({ what: `mount ${point}` }));
}

/** Processes come and go while we read: what is gone has left nothing. */
function readOr(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

function cwd(pid: number): string {
  try {
    return readlinkSync(`/proc/${pid}/cwd`);
  } catch {
    return '';
  }
}
