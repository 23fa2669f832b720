import { readFileSync } from 'node:fs';
import { type Readable } from 'node:stream';
import { execa, type ResultPromise } from 'execa';
import { CisternError } from '../../shared/errors.ts';
import { handDown, shown as namesOf } from './held.ts';

/** What the kernel enforces on a child (setrlimit): bytes of address space, seconds of CPU, bytes of the largest file it writes. */
export interface Limits {
  addressSpace?: number;
  cpuSeconds?: number;
  fileSize?: number;
  /** Processes and threads of the child's user, in its user namespace. */
  processes?: number;
}

export interface RunOptions {
  /** Aborted: the child is killed and CANCELLED thrown (or the signal's reason where that is a CisternError). */
  signal?: AbortSignal | undefined;
  /** Wall-clock deadline, 60 s unless said otherwise, at most 24 days; then TIMEOUT. */
  timeoutSeconds?: number;
  /** What the child reads from its standard input; nothing unless given. */
  input?: string | Uint8Array | Readable;
  /** Added to the few variables that children get (see `childEnv`): secrets may go here, never into `args`. */
  env?: Record<string, string>;
  cwd?: string;
  /** Is called with each piece of output as it comes; `stdout` of the result is then empty. */
  onStdout?: (text: string) => void;
  /** Takes the output as a stream of bytes, with back-pressure. Where it throws, the child is killed and its error thrown. */
  consume?: (stdout: Readable) => Promise<void>;
  limits?: Limits;
  /** Words before the program that start it in another place: see cage.ts. */
  within?: readonly string[];
  /** Most bytes that may come on stdout and on stderr, 4 MiB unless said otherwise; more is TOOL_FAILED. Streams are not counted. */
  maxOutput?: number;
  /** Exit codes that are no failure, [0] unless said otherwise. */
  accept?: number[];
}

export interface RunResult {
  stdout: string;
  stderr: string;
  exitCode: number;
}

/** The Debian package that brings a program: for TOOL_MISSING. */
const PACKAGES: Record<string, string> = {
  'qemu-img': 'qemu-utils',
  'qemu-nbd': 'qemu-utils',
  rbd: 'ceph-common',
  rados: 'ceph-common',
  ceph: 'ceph-common',
  'mount.nfs': 'nfs-common',
  umount: 'mount',
  ssh: 'openssh-client',
  scp: 'openssh-client',
  sftp: 'openssh-client',
  s3cmd: 's3cmd',
  xz: 'xz-utils',
  prlimit: 'util-linux',
  fallocate: 'util-linux',
  choom: 'util-linux',
  unshare: 'util-linux',
  setpriv: 'util-linux',
  bwrap: 'bubblewrap',
};

/** A child that ignores SIGTERM gets SIGKILL after this, and is left behind (it hangs in the kernel) after twice as long, in ms. */
const KILL_AFTER = 2000;

/**
 * Runs a program to its end: argv only, never a shell, C locale, always with a deadline.
 * Throws TOOL_MISSING, TOOL_FAILED (program, arguments, exit code and the last lines of stderr), TIMEOUT or CANCELLED.
 * `args` show up in errors and in the process list: no secrets in them. Paths beneath what is held (held.ts) work in the child too.
 */
export async function run(file: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const { signal, accept = [0], maxOutput = 4 * 2 ** 20 } = options;
  // Timers overflow beyond 2^31 ms.
  const timeoutSeconds = Math.min(options.timeoutSeconds ?? 60, 2 ** 21);
  throwIfAborted(signal);
  const streamed = options.onStdout !== undefined || options.consume !== undefined;
  const kill = new AbortController();
  const handed = handDown([...(options.within ?? []), ...limited(file, args, options.limits)]);
  const [first, ...rest] = handed.args as [string, ...string[]];
  const cancelled = signal === undefined ? kill.signal : AbortSignal.any([signal, kill.signal]);
  // before execa hears of it, whose SIGTERM would reach the outermost process only
  if (options.within?.length) cancelled.addEventListener('abort', () => endCaged(subprocess.pid), { once: true });
  const subprocess = execa(first, rest, {
    env: { ...childEnv(), ...options.env },
    extendEnv: false,
    cwd: options.cwd ?? '/',
    reject: false,
    stripFinalNewline: false,
    stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe', ...(handed.fds as 3[])], // execa's types know those up to 9
    ...(options.input === undefined ? {} : { input: options.input }),
    buffer: { stdout: !streamed, stderr: true },
    maxBuffer: maxOutput,
    cancelSignal: cancelled,
    timeout: timeoutSeconds * 1000,
    forceKillAfterDelay: KILL_AFTER,
  });
  if (options.onStdout !== undefined) subprocess.stdout.setEncoding('utf8').on('data', options.onStdout);
  let consumed: { error: unknown } | undefined;
  const consuming = options.consume?.(subprocess.stdout).catch((error: unknown) => {
    consumed = { error };
    kill.abort();
  });
  const shown = namesOf([file, ...args].join(' '));
  const result = await settled(subprocess, signal, timeoutSeconds, shown);
  result.stderr = handed.shown(result.stderr ?? '');
  await consuming;
  if (signal?.aborted) throw abortReason(signal);
  if (result.timedOut)
    throw new CisternError(
      'TIMEOUT',
      `${shown}: was stopped after its deadline of ${timeoutSeconds} s${lastLines(result.stderr)}`,
    );
  if (result.code === 'ENOENT' && result.exitCode === undefined) throw missing(first, 'no such program in PATH');
  // prlimit, unshare and choom say which program they could not start
  const absent = result.exitCode === 127 && /failed to execute '?([\w.+-]+)'?: No such file/.exec(result.stderr)?.[1];
  if (absent) throw missing(absent, 'no such program in PATH');
  if (result.isMaxBuffer) throw new CisternError('TOOL_FAILED', `${shown}: said more than the ${maxOutput} bytes it may`);
  // A child that failed explains a reader that failed; one that was killed because of the reader does not.
  if (result.exitCode !== undefined && accept.includes(result.exitCode) && consumed === undefined)
    return { stdout: result.stdout ?? '', stderr: result.stderr, exitCode: result.exitCode };
  if (consumed !== undefined && (result.isCanceled || result.exitCode === 0)) throw consumed.error;
  const how =
    result.exitCode === undefined
      ? result.signal === undefined
        ? result.shortMessage
        : `was killed by ${result.signal}`
      : `exit code ${result.exitCode}`;
  throw new CisternError('TOOL_FAILED', `${shown}: ${how}${lastLines(result.stderr)}`, { cause: result.stderr });
}

interface Ended {
  stdout?: string;
  stderr: string;
  exitCode?: number;
  signal?: string;
  code?: string;
  shortMessage: string;
  timedOut: boolean;
  isCanceled: boolean;
  isMaxBuffer: boolean;
}

/** The end of the child, or the news that not even SIGKILL ended it: a dead storage server holds such a process in the kernel. */
async function settled(
  subprocess: ResultPromise,
  signal: AbortSignal | undefined,
  timeoutSeconds: number,
  shown: string,
): Promise<Ended> {
  const gone = Promise.withResolvers<never>();
  const abandon = (): void => {
    subprocess.nodeChildProcess.unref();
    subprocess.stdout?.destroy();
    subprocess.stderr?.destroy();
    gone.reject(
      new CisternError(
        'TIMEOUT',
        `${shown}: process ${subprocess.pid} does not end even when killed; the storage it uses may hang`,
      ),
    );
  };
  const late = setTimeout(abandon, timeoutSeconds * 1000 + 2 * KILL_AFTER);
  let afterAbort: NodeJS.Timeout | undefined;
  const onAbort = (): void => void (afterAbort = setTimeout(abandon, 2 * KILL_AFTER));
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    return (await Promise.race([subprocess, gone.promise])) as Ended;
  } finally {
    clearTimeout(late);
    clearTimeout(afterAbort);
    signal?.removeEventListener('abort', onAbort);
  }
}

/** prlimit sets the limits and becomes the program, so that the child's pid is the program's. */
function limited(file: string, args: readonly string[], limits: Limits | undefined): string[] {
  if (limits === undefined) return [file, ...args];
  const flags = ['--core=0'];
  if (limits.addressSpace !== undefined) flags.push(`--as=${Math.ceil(limits.addressSpace)}`);
  if (limits.cpuSeconds !== undefined) flags.push(`--cpu=${Math.ceil(limits.cpuSeconds)}`);
  if (limits.fileSize !== undefined) flags.push(`--fsize=${Math.ceil(limits.fileSize)}`);
  if (limits.processes !== undefined) flags.push(`--nproc=${limits.processes}`);
  return ['prlimit', ...flags, '--', file, ...args];
}

/** Only what programs need: the agent's own environment may hold its settings and tokens. */
function childEnv(): Record<string, string> {
  const kept = ['HOME', 'USER', 'LOGNAME', 'TMPDIR'].flatMap(name =>
    process.env[name] === undefined ? [] : [[name, process.env[name]]],
  );
  // mount.nfs and others lie in sbin, which the PATH of an ordinary login does not name.
  return { ...Object.fromEntries(kept), PATH: `${process.env['PATH'] ?? '/usr/bin:/bin'}:/usr/sbin:/sbin`, LC_ALL: 'C' };
}

const missing = (file: string, came: string): CisternError => {
  const place = PACKAGES[file] === undefined ? '' : `; on Debian and Ubuntu it comes with the package ${PACKAGES[file]}`;
  return new CisternError('TOOL_MISSING', `starting ${file}: ${came}${place}`);
};

const lastLines = (stderr: string): string => {
  const lines = stderr.trim().split('\n').slice(-5).join('\n').slice(-2000);
  return lines === '' ? '' : `: ${lines}`;
};

/** What to throw once `signal` has aborted: its reason where that is one of ours (a deadline, say), else CANCELLED. */
export function abortReason(signal: AbortSignal): CisternError {
  if (signal.reason instanceof CisternError) return signal.reason;
  return new CisternError('CANCELLED', 'the work was cancelled before it was done', { cause: signal.reason });
}

export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw abortReason(signal);
}

/**
 * Kills bwrap and the process that it is building a cage in. That one waits for a word of bwrap first and does not hear of its death yet:
 * of a bwrap that is killed alone in that moment it would wait for ever.
 */
function endCaged(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(pid, 'SIGSTOP'); // no more children
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean);
    for (const one of [...children, pid]) process.kill(Number(one), 'SIGKILL');
  } catch (error) {
    // it, or what it began, has ended by itself meanwhile
    if (!['ESRCH', 'ENOENT'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
}
