/** Objects that `scp` moves as a whole: for those who trust what they know more than what is fast. */
import { lstat } from 'node:fs/promises';
import { CisternError } from '../../../shared/errors.ts';
import { run } from '../../host/run.ts';
import type { ToolLane } from '../../transfer/ends.ts';
import { address, type SftpConfig } from './config.ts';
import type { Control } from './control.ts';
import { connectionError } from './errors.ts';
import { statFile } from './files.ts';
import { scpCommand, sshFolder } from './ssh.ts';

const TICK_MS = 500;
/** A watchdog looks at the bytes; this is only so that nothing runs for ever. */
const DEADLINE_SECONDS = 7 * 86_400;

interface Options {
  config: SftpConfig;
  /** On the server. */
  path: string;
  /** Of the object, for messages. */
  name: string;
}

export const scpDownload = ({ config, path, name }: Options): ToolLane => ({
  name: 'scp',
  run: (file, { signal, told }) => {
    const sizeNow = async (): Promise<number> => (await lstat(file)).size;
    // the server's side of scp takes patterns
    const literal = path.replace(/[\\*?[\]{}~]/g, '\\$&');
    return scp(config, `reading ${name}`, remote => [remote(literal), file], { signal, told, sizeNow });
  },
});

/** `begin` is called before anything is sent, `link` looks how much has arrived. */
export const scpUpload = ({ config, path, name }: Options, link: Control, begin: () => Promise<void>): ToolLane => ({
  name: 'scp',
  run: async (file, { signal, told }) => {
    await begin();
    const sizeNow = async (): Promise<number> => (await statFile(link, path)).size;
    await scp(config, `writing ${name}`, remote => [file, remote(path)], { signal, told, sizeNow });
    const [arrived, sent] = [await sizeNow(), (await lstat(file)).size];
    if (arrived !== sent) throw new CisternError('STORE_UNREACHABLE', `writing ${name}: ${arrived} of ${sent} bytes arrived`);
  },
});

interface Running {
  signal: AbortSignal;
  told: (bytes: number) => void;
  /** Bytes that are at the other end. */
  sizeNow: () => Promise<number>;
}

async function scp(
  config: SftpConfig,
  tried: string,
  files: Parameters<typeof scpCommand>[2],
  { signal, told, sizeNow }: Running,
): Promise<void> {
  await using folder = await sshFolder();
  const { args, env } = await scpCommand(config, folder.path, files);
  let asking = false;
  const look = async (): Promise<void> => {
    if (asking) return;
    asking = true;
    await sizeNow().then(told, () => undefined); // not there yet, or scp itself is about to say more
    asking = false;
  };
  const timer = setInterval(() => void look(), TICK_MS);
  try {
    await run('scp', args, { env, signal, timeoutSeconds: DEADLINE_SECONDS });
  } catch (error) {
    throw scpError(error, `${tried} with scp at ${address(config)}`);
  } finally {
    clearInterval(timer);
  }
}

/** What scp says of files begins with its name; the rest comes from ssh. */
function scpError(error: unknown, tried: string): unknown {
  if (!(error instanceof CisternError) || error.code !== 'TOOL_FAILED') return error;
  const said = String(error.cause);
  const last = said.trim().split('\n').at(-1) ?? '';
  const ended = (code: ConstructorParameters<typeof CisternError>[0]): CisternError =>
    new CisternError(code, `${tried}: ${last.slice(-600)}`, { cause: error });
  if (/^scp: .*local .*No space left/m.test(said)) return ended('POOL_FULL');
  if (/^scp: .*: Permission denied\s*$/m.test(said)) return ended('STORE_PERMISSION');
  if (/^scp: .*: No such file/m.test(said)) return ended('OBJECT_MISSING');
  if (/^scp: .*(?:: Failure|No space left|quota)/m.test(said)) return ended('IO_ERROR');
  return connectionError(tried, said, error);
}
