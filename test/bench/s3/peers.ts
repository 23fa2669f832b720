import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import type { TestCeph } from '../../servers/ceph.ts';

const LIMIT_MS = 600_000;

interface Peer {
  /** `key` is BUCKET/OBJECT. */
  download(key: string, file: string): Promise<void>;
  upload(file: string, key: string): Promise<void>;
}

/** The tools that people use, with their own defaults. Their keys stand in a file and in the environment. */
export async function peers({ rgw }: TestCeph, folder: string): Promise<{ s3cmd: Peer; rclone: Peer }> {
  const { accessKey, secretKey } = rgw.user;
  const host = `127.0.0.1:${rgw.port}`;
  const config = join(folder, 's3cfg');
  const lines = { access_key: accessKey, secret_key: secretKey, host_base: host, host_bucket: host, use_https: 'False' };
  const text = Object.entries(lines).map(([name, value]) => `${name} = ${value}\n`);
  await writeFile(config, `[default]\n${text.join('')}`, { mode: 0o600 });
  const s3cmd = async (...args: string[]): Promise<void> =>
    void (await execa('s3cmd', ['-c', config, '--no-progress', '--quiet', ...args], { timeout: LIMIT_MS, stdin: 'ignore' }));
  const env = {
    RCLONE_CONFIG: '/dev/null',
    RCLONE_CONFIG_PEER_TYPE: 's3',
    RCLONE_CONFIG_PEER_PROVIDER: 'Ceph',
    RCLONE_CONFIG_PEER_ENDPOINT: rgw.endpoint,
    RCLONE_CONFIG_PEER_ACCESS_KEY_ID: accessKey,
    RCLONE_CONFIG_PEER_SECRET_ACCESS_KEY: secretKey,
    RCLONE_CONFIG_PEER_NO_CHECK_BUCKET: 'true',
    AWS_CA_BUNDLE: undefined, // a bundle of the machine's own makes rclone refuse to begin: not needed on http
  };
  const rclone = async (from: string, to: string): Promise<void> =>
    void (await execa('rclone', ['copyto', from, to], { env, timeout: LIMIT_MS, stdin: 'ignore' }));
  return {
    s3cmd: {
      download: (key, file) => s3cmd('--force', 'get', `s3://${key}`, file),
      upload: (file, key) => s3cmd('put', file, `s3://${key}`),
    },
    rclone: { download: (key, file) => rclone(`peer:${key}`, file), upload: (file, key) => rclone(file, `peer:${key}`) },
  };
}
