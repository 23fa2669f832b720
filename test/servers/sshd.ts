/** A real OpenSSH server of our own on a free loopback port; the system's sshd, if there is one, is not touched. */
import { once } from 'node:events';
import { access, chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createConnection, createServer } from 'node:net';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { descendants } from './processes.ts';

const READY_MS = 10_000;

export interface TestSshd extends AsyncDisposable {
  host: string;
  port: number;
  user: string;
  /** As a store's configuration wants it: `ssh-ed25519 AAAA...`. */
  hostKey: string;
  privateKey: string;
  /** File of the private key, for command line tools. */
  keyFile: string;
  /** File with the host key, for command line tools. */
  knownHosts: string;
  /** Where `password` was asked for. */
  password?: string;
  /** An empty folder on the server, absolute. */
  path: string;
  /** Kills the server and every connection at once, as a power cut would. */
  kill(): Promise<void>;
  /** Processes of connections. */
  connections(): Promise<number[]>;
  /** Stops the server's processes without closing a connection, as a cut cable would; `false` lets them go on. */
  freeze(frozen?: boolean): Promise<void>;
  stop(): Promise<void>;
}

/**
 * Starts sshd as the present user. With `password` (root only: it takes a private mount namespace with a shadow file of its own) the
 * user may also come in with a password. Throws where sshd is not installed.
 */
export async function startSshd(options: { password?: boolean; path?: string } = {}): Promise<TestSshd> {
  const sshd = '/usr/sbin/sshd';
  await access(sshd).catch(() => {
    throw new Error(`${sshd} is missing: install the package openssh-server`);
  });
  const user = userInfo().username;
  const folder = await mkdtemp(join(tmpdir(), 'cistern-sshd-'));
  const [hostKeyFile, keyFile, knownHosts, config] = ['host_key', 'key', 'known_hosts', 'sshd_config'].map(n =>
    join(folder, n),
  ) as [string, string, string, string];
  for (const file of [hostKeyFile, keyFile]) await execa('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', '', '-f', file]);
  const path = options.path ?? join(folder, 'root');
  await mkdir(path, { recursive: true });
  const port = await freePort();
  const hostKey = (await readFile(`${hostKeyFile}.pub`, 'utf8')).trim();
  await writeFile(knownHosts, `[127.0.0.1]:${port} ${hostKey}\n`);
  await writeFile(config, configText({ port, hostKeyFile, keyFile, password: options.password === true }));
  if (process.getuid?.() === 0) await mkdir('/run/sshd', { recursive: true, mode: 0o755 }); // compiled in; a boot would make it

  const log = join(folder, 'log');
  const command = [sshd, '-D', '-f', config, '-E', log];
  const argv = options.password ? await withPassword(folder, user, command) : command;
  const child = execa(argv[0]!, argv.slice(1), {
    stdin: 'ignore',
    stdout: 'ignore',
    stderr: 'ignore',
    reject: false,
    cleanup: true,
  });
  const kill = async (): Promise<void> => {
    const pid = child.pid;
    if (pid !== undefined) for (const one of [pid, ...(await descendants(pid))]) signal(one, 'SIGKILL');
    await child;
  };
  const stop = async (): Promise<void> => {
    await kill();
    await rm(folder, { recursive: true, force: true });
  };
  try {
    await ready(port, child);
  } catch (error) {
    const said = await readFile(log, 'utf8').catch(() => '');
    await stop();
    throw new Error(`starting sshd: ${(error as Error).message}\n${said}`, { cause: error });
  }
  return {
    host: '127.0.0.1',
    port,
    user,
    hostKey,
    privateKey: await readFile(keyFile, 'utf8'),
    keyFile,
    knownHosts,
    ...(options.password ? { password: PASSWORD } : {}),
    path,
    kill,
    connections: async () => (child.pid === undefined ? [] : descendants(child.pid)),
    freeze: async (frozen = true) => {
      for (const one of await descendants(child.pid!)) signal(one, frozen ? 'SIGSTOP' : 'SIGCONT');
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

const configText = (o: { port: number; hostKeyFile: string; keyFile: string; password: boolean }): string => `
ListenAddress 127.0.0.1:${o.port}
HostKey ${o.hostKeyFile}
PidFile none
AuthorizedKeysFile ${o.keyFile}.pub
StrictModes no
UsePAM no
PubkeyAuthentication yes
PasswordAuthentication ${o.password ? 'yes' : 'no'}
KbdInteractiveAuthentication no
PermitRootLogin yes
AllowTcpForwarding no
X11Forwarding no
PrintMotd no
MaxStartups 100
Subsystem sftp internal-sftp
`;

const PASSWORD = 'cistern-test';
/** `openssl passwd -6 -salt cistern cistern-test` */
const PASSWORD_HASH = '$6$cistern$HGJqAGnjOQAXDTf0Mx1/Drq0gYVPCZc2jrf/2k75/XpRVc4vMJ/rHZzkEqVjMnpfXXScslafiaWMjMPB2jQHK0';

/** `command` in a mount namespace of its own, where the user's line of the shadow file has our password. */
async function withPassword(folder: string, user: string, command: string[]): Promise<string[]> {
  const shadow = join(folder, 'shadow');
  const lines = (await readFile('/etc/shadow', 'utf8')).split('\n');
  const others = lines.filter(line => !line.startsWith(`${user}:`));
  await writeFile(shadow, [`${user}:${PASSWORD_HASH}:19000:0:99999:7:::`, ...others].join('\n'), { mode: 0o600 });
  const script = join(folder, 'with-shadow');
  await writeFile(script, '#!/bin/sh -e\nmount --bind "$1" /etc/shadow\nshift\nexec "$@"\n');
  await chmod(script, 0o700);
  return ['unshare', '--mount', '--', script, shadow, ...command];
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}

/** Waits until the server greets. */
async function ready(port: number, child: Promise<{ exitCode?: number }>): Promise<void> {
  const deadline = AbortSignal.timeout(READY_MS);
  const ended = child.then(({ exitCode }) => {
    throw new Error(`it ended with ${exitCode}`);
  });
  for (;;) {
    deadline.throwIfAborted();
    if (await Promise.race([greets(port), ended])) return;
    await new Promise(resolve => setTimeout(resolve, 20));
  }
}

function greets(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = createConnection({ port, host: '127.0.0.1' });
    socket.once('error', () => resolve(false));
    socket.once('close', () => resolve(false));
    socket.once('data', () => {
      resolve(true);
      socket.destroy();
    });
  });
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error; // it ended meanwhile
  }
}
