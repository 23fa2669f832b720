import { execa } from 'execa';
import type { Place } from './place.ts';

const LIMIT_MS = 600_000;

interface Peer {
  download(object: string, file: string): Promise<void>;
  upload(file: string, object: string): Promise<void>;
}

/** The tools that people use, with their own defaults. */
export function peers(place: Place): Record<string, Peer> {
  const { host, port, user, keyFile, knownHosts } = place.sshd;
  const run = async (file: string, args: string[], env: Record<string, string> = {}): Promise<void> => {
    await execa(file, args, { env, timeout: LIMIT_MS, stdin: 'ignore' });
  };
  const options = [
    '-F',
    'none',
    '-q',
    '-P',
    String(port),
    '-i',
    keyFile,
    '-o',
    `UserKnownHostsFile=${knownHosts}`,
    '-o',
    'BatchMode=yes',
  ];
  const scp = (from: string, to: string): Promise<void> => run('scp', [...options, from, to]);
  const remote = (path: string): string => `${user}@${host}:${path}`;
  const rcloneEnv = {
    RCLONE_CONFIG: '/dev/null',
    RCLONE_CONFIG_PEER_TYPE: 'sftp',
    RCLONE_CONFIG_PEER_HOST: host,
    RCLONE_CONFIG_PEER_PORT: String(port),
    RCLONE_CONFIG_PEER_USER: user,
    RCLONE_CONFIG_PEER_KEY_FILE: keyFile,
    RCLONE_CONFIG_PEER_KNOWN_HOSTS_FILE: knownHosts,
    RCLONE_CONFIG_PEER_SHELL_TYPE: 'none',
  };
  const rclone = (from: string, to: string): Promise<void> => run('rclone', ['copyto', from, to], rcloneEnv);
  return {
    scp: {
      download: (object, file) => scp(remote(object), file),
      upload: (file, object) => scp(file, remote(object)),
    },
    'scp + sha256sum': {
      download: async (object, file) => {
        await scp(remote(object), file);
        await run('sha256sum', [file]);
      },
      upload: async (file, object) => {
        await run('sha256sum', [file]);
        await scp(file, remote(object));
      },
    },
    rclone: {
      download: (object, file) => rclone(`peer:${object}`, file),
      upload: (file, object) => rclone(file, `peer:${object}`),
    },
  };
}
