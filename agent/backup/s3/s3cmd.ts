/** Objects that `s3cmd` moves as a whole: for those who trust what they know more than what is fast. */
import { lstat, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CisternError } from '../../../shared/errors.ts';
import { run } from '../../host/run.ts';
import type { ToolLane } from '../../transfer/ends.ts';
import { answerError } from './answers.ts';
import { bucketUrl, type S3Config } from './config.ts';

const MIB = 2 ** 20;
const TICK_MS = 500;
/** A watchdog looks at the bytes; this is only so that nothing runs for ever. */
const DEADLINE_SECONDS = 7 * 86_400;
/** "Amazon S3 multipart upload limits". */
const MOST_PARTS = 10_000;

export interface S3cmdOptions {
  config: S3Config;
  key: string;
  /** Of the object, for messages. */
  name: string;
}

/** TOOL_MISSING where a host has no s3cmd. */
export const s3cmdVersion = async (): Promise<string> => (await run('s3cmd', ['--version'])).stdout.trim();

export const s3cmdDownload = (options: S3cmdOptions): ToolLane => ({
  name: 's3cmd',
  run: async (file, { signal, told }) => {
    const timer = setInterval(() => {
      void lstat(file).then(
        ({ size }) => told(size),
        () => undefined,
      ); // not there yet
    }, TICK_MS);
    try {
      await s3cmd(options, 'reading', object => ['get', '--force', '--no-progress', '--', object, file], { signal });
    } finally {
      clearInterval(timer);
    }
  },
});

/** `begin` is called before anything is sent. */
export const s3cmdUpload = (options: S3cmdOptions, begin: (size: number) => Promise<void>): ToolLane => ({
  name: 's3cmd',
  run: async (file, { signal, told }) => {
    const { size } = await lstat(file);
    await begin(size);
    const chunk = Math.max(16, Math.ceil(size / MOST_PARTS / MIB));
    const { storageClass, sse } = options.config;
    const settings = [
      ...(storageClass === undefined ? [] : [`--storage-class=${storageClass}`]),
      ...(sse === undefined ? [] : [`--add-header=x-amz-server-side-encryption:${sse}`]),
    ];
    const args = ['put', '--progress', `--multipart-chunk-size-mb=${chunk}`, ...settings];
    await s3cmd(options, 'writing', to => [...args, '--', file, to], { signal, onStdout: pieces(told) });
  },
});

/** s3cmd tells how much of a part has been sent: `1048576 of 16777216  6% in 0s`. */
function pieces(told: (bytes: number) => void): (text: string) => void {
  let before = 0;
  let last = { at: 0, of: 0 };
  return text => {
    for (const [, at, of] of text.matchAll(/(\d+) of (\d+) +\d+%/g)) {
      const now = { at: Number(at), of: Number(of) };
      if (now.at < last.at) before += last.of;
      last = now;
      told(before + now.at);
    }
  };
}

async function s3cmd(
  { config, key, name }: S3cmdOptions,
  doing: string,
  command: (object: string) => string[],
  options: { signal: AbortSignal; onStdout?: (text: string) => void },
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'cistern-s3cmd-'));
  await using _folder = { [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }) };
  const settings = await configFile(config, folder);
  const args = ['-c', settings, '--no-preserve', '--encoding=UTF-8', '--no-guess-mime-type'];
  try {
    await run('s3cmd', [...args, ...command(`s3://${config.bucket}/${key}`)], { ...options, timeoutSeconds: DEADLINE_SECONDS });
  } catch (error) {
    throw s3cmdError(error, `${doing} ${name} with s3cmd`);
  }
}

/** Its settings, keys among them, in a file that only we may read. */
async function configFile(config: S3Config, folder: string): Promise<string> {
  // what begins with $ it takes for the name of a variable
  for (const field of ['accessKey', 'secretKey'] as const)
    if (!/^(?!\$)[\x20-\x7e]*$/.test(config[field]))
      throw new CisternError('STORE_CONFIG', `using s3cmd: ${field} has characters that its configuration cannot hold`);
  const { endpoint, pathStyle } = bucketUrl(config);
  const ca = join(folder, 'ca.pem');
  if (config.ca !== undefined) await writeFile(ca, config.ca, { mode: 0o600 });
  const lines = {
    access_key: config.accessKey,
    secret_key: config.secretKey,
    host_base: endpoint.host,
    host_bucket: pathStyle ? endpoint.host : `%(bucket)s.${endpoint.host}`,
    bucket_location: config.region,
    use_https: endpoint.protocol === 'https:' ? 'True' : 'False',
    ...(config.ca !== undefined && { ca_certs_file: ca }),
  };
  const file = join(folder, 's3cfg');
  const text = Object.entries(lines).map(([field, value]) => `${field} = "${value}"\n`);
  await writeFile(file, `[default]\n${text.join('')}`, { mode: 0o600, flag: 'wx' });
  return file;
}

function s3cmdError(error: unknown, tried: string): unknown {
  if (!(error instanceof CisternError) || error.code !== 'TOOL_FAILED') return error;
  const said = String(error.cause);
  const last =
    said
      .trim()
      .split('\n')
      .filter(line => line.startsWith('ERROR'))
      .at(-1) ??
    said.trim().split('\n').at(-1) ??
    '';
  const [, status, code = ''] = /S3 error: (\d{3}) \((\w*)\)/.exec(said) ?? [];
  if (status !== undefined) {
    const { code: known, words } = answerError({ status: Number(status), code });
    return new CisternError(known, `${tried}: ${words}`, { cause: error });
  }
  const full = /No space left on device/.test(said);
  const trust = /CERTIFICATE_VERIFY_FAILED|certificate/i.test(said);
  return new CisternError(full ? 'POOL_FULL' : trust ? 'STORE_CONFIG' : 'STORE_UNREACHABLE', `${tried}: ${last.slice(-600)}`, {
    cause: error,
  });
}
