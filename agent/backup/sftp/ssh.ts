/** How `ssh` and `scp` are told whom to trust and who we are: files in a folder of our own, never argv. */
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pinned, type SftpConfig } from './config.ts';

/** AES-GCM first: with hardware AES it moved a quarter more than ChaCha20 where it was measured. */
const CIPHERS = 'aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes256-ctr';

/**
 * Answers ssh's question for a password or passphrase from a file beside the key.
 * awk, because ssh needs a program here and no shell should be one.
 */
const ASKPASS = '#!/usr/bin/awk -f\nBEGIN { getline secret < ENVIRON["CISTERN_SSH_SECRET_FILE"]; print secret }\n';

/** A folder (0700) for one ssh child: its key, its known_hosts and its FIFOs. Removed when disposed of. */
export async function sshFolder(): Promise<AsyncDisposable & { path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'cistern-ssh-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

/** The server's name for `ssh` and `scp`, whatever its address looks like. */
const ALIAS = 'cistern';

export interface SshCommand {
  args: string[];
  env: Record<string, string>;
}

/** argv and environment of `ssh` for the sftp subsystem of `config`'s server; writes what they name into `folder`. */
export async function sshCommand(config: SftpConfig, folder: string): Promise<SshCommand> {
  const { args, env } = await settings(config, folder);
  return { args: ['-T', '-a', '-x', '-e', 'none', ...args, '-s', '--', ALIAS, 'sftp'], env };
}

/** argv and environment of `scp`, by way of SFTP; `remote` makes the name of a path on the server. */
export async function scpCommand(
  config: SftpConfig,
  folder: string,
  files: (remote: (path: string) => string) => [from: string, to: string],
): Promise<SshCommand> {
  const { args, env } = await settings(config, folder);
  return { args: ['-q', '-s', ...args, '--', ...files(path => `${ALIAS}:${path}`)], env };
}

async function settings(config: SftpConfig, folder: string): Promise<SshCommand> {
  const file = async (name: string, text: string): Promise<string> => {
    await writeFile(join(folder, name), text, { mode: 0o600, flag: 'wx' });
    return join(folder, name);
  };
  const { type, key, algorithms } = pinned(config);
  const knownHosts = await file('known_hosts', `${ALIAS} ${type} ${key}\n`);
  const secret = config.password ?? config.passphrase;
  const options = {
    UserKnownHostsFile: knownHosts,
    GlobalKnownHostsFile: '/dev/null',
    HostName: config.host,
    Port: String(config.port),
    User: config.user,
    Ciphers: CIPHERS,
    HostKeyAlias: ALIAS,
    HostKeyAlgorithms: algorithms.join(','),
    StrictHostKeyChecking: 'yes',
    UpdateHostKeys: 'no',
    IdentitiesOnly: 'yes',
    IdentityAgent: 'none',
    BatchMode: secret === undefined ? 'yes' : 'no',
    NumberOfPasswordPrompts: '1',
    PreferredAuthentications: config.password === undefined ? 'publickey' : 'password,keyboard-interactive',
    ConnectTimeout: '15',
    ServerAliveInterval: '15',
    ServerAliveCountMax: '4',
    Compression: 'no',
    LogLevel: 'ERROR',
  };
  const args = ['-F', 'none'];
  for (const [name, value] of Object.entries(options)) args.push('-o', `${name}=${value}`);
  if (config.privateKey !== undefined) args.push('-i', await file('key', `${config.privateKey.trimEnd()}\n`));

  const env: Record<string, string> = { PATH: process.env.PATH ?? '/usr/bin:/bin', LC_ALL: 'C', TMPDIR: tmpdir() };
  if (secret !== undefined) {
    const askpass = await file('askpass', ASKPASS);
    await chmod(askpass, 0o700);
    Object.assign(env, { SSH_ASKPASS: askpass, SSH_ASKPASS_REQUIRE: 'force', DISPLAY: 'none' });
    env.CISTERN_SSH_SECRET_FILE = await file('secret', `${secret}\n`);
  }
  return { args, env };
}
