/**
 * A byte channel to the server's sftp subsystem: an OpenSSH child whose standard input and output are FIFOs, because a transfer
 * thread can block on a FIFO, and measured here that is the fastest way that Node has (pure JS SSH: a fifth of it).
 */
import { close as closeFd, closeSync, constants, openSync, read, writeSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { execa } from 'execa';
import { CisternError } from '../../../shared/errors.ts';
import { run } from '../../host/run.ts';
import { address, type SftpConfig } from './config.ts';
import { connectionError } from './errors.ts';
import { sshCommand, sshFolder } from './ssh.ts';
import { initPacket, packetLength, parseLimits, parseVersion, requestHead, SAFE_LENGTH, string, TYPE } from './wire.ts';

/** From the start of ssh until the server has answered as SFTP. */
const OPEN_MS = 30_000;
const END_MS = 2_000;
const close = promisify(closeFd);
const readAt = promisify(read);

/** What a transfer thread needs of a channel: its file descriptors and the longest read and write that the server takes. */
export interface ChannelData {
  input: number;
  output: number;
  maxRead: number;
  maxWrite: number;
}

export interface Channel {
  data: ChannelData;
  /** Ends ssh, so that whoever is blocked on the channel sees its end. */
  kill(): void;
  /** What ssh said up to its end, for which this waits a little. Empty where it was ended by us. */
  lastWords(): Promise<string>;
  /** Ends ssh and closes the channel. Call it once no thread uses the channel; safe to call twice. */
  close(): Promise<void>;
}

/** Opens a channel and speaks SFTP as far as its limits. Throws STORE_* errors, TOOL_MISSING or the signal's reason. */
export async function openChannel(config: SftpConfig, signal: AbortSignal): Promise<Channel> {
  await using folder = await sshFolder(); // gone, key and all, as soon as the server has answered
  const { args, env } = await sshCommand(config, folder.path);
  const fifos = await makeFifos(folder.path);
  const child = execa('ssh', args, {
    stdin: fifos.childInput as 3, // execa takes any descriptor, its types only those up to 9
    stdout: fifos.childOutput as 3,
    stderr: 'pipe',
    buffer: false,
    reject: false,
    env,
    extendEnv: false,
    forceKillAfterDelay: END_MS,
  });
  [fifos.childInput, fifos.childOutput].forEach(fd => closeSync(fd));
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => (said = (said + chunk.toString('utf8')).slice(-4096)));
  const kill = (): void => void child.kill();
  let closing: Promise<void> | undefined;
  const channel: Omit<Channel, 'data'> = {
    kill,
    lastWords: async () => {
      await Promise.race([child, after(END_MS)]);
      return said;
    },
    close: () => (closing ??= closeAll()),
  };
  const closeAll = async (): Promise<void> => {
    kill();
    await child;
    await Promise.all([close(fifos.input), close(fifos.output)]);
  };

  const deadline = AbortSignal.timeout(OPEN_MS);
  const either = AbortSignal.any([signal, deadline]);
  either.addEventListener('abort', kill, { once: true });
  try {
    either.throwIfAborted();
    const limits = await greet(fifos);
    return { ...channel, data: { input: fifos.input, output: fifos.output, ...limits } };
  } catch (error) {
    const result = await Promise.race([child, after(END_MS)]);
    await channel.close();
    signal.throwIfAborted();
    const tried = `connecting to ${address(config)} with ssh`;
    if (result?.code === 'ENOENT')
      throw new CisternError('TOOL_MISSING', `${tried}: there is no ssh; install the package openssh-client`);
    if (deadline.aborted) throw new CisternError('STORE_UNREACHABLE', `${tried}: no answer within ${OPEN_MS / 1000} s`);
    throw connectionError(tried, said || (error as Error).message, error);
  } finally {
    either.removeEventListener('abort', kill);
  }
}

/** Both ends of two FIFOs, opened without waiting for each other. */
async function makeFifos(folder: string): Promise<{ input: number; output: number; childInput: number; childOutput: number }> {
  const paths = [join(folder, 'in'), join(folder, 'out')] as const;
  await run('mkfifo', ['-m', '600', '--', ...paths]);
  const both = paths.map(path => openSync(path, constants.O_RDWR)); // so that the following opens do not wait
  const [output, childInput] = [openSync(paths[0], constants.O_WRONLY), openSync(paths[0], constants.O_RDONLY)];
  const [input, childOutput] = [openSync(paths[1], constants.O_RDONLY), openSync(paths[1], constants.O_WRONLY)];
  both.forEach(fd => closeSync(fd));
  return { input, output, childInput, childOutput };
}

async function greet({ input, output }: { input: number; output: number }): Promise<{ maxRead: number; maxWrite: number }> {
  writeSync(output, initPacket()); // a few bytes into an empty pipe: does not block
  const extensions = parseVersion(await readPacket(input));
  if (!extensions.has('limits@openssh.com')) return { maxRead: SAFE_LENGTH, maxWrite: SAFE_LENGTH };
  const body = string('limits@openssh.com');
  writeSync(output, Buffer.concat([requestHead(TYPE.extended, 0, body.length), body]));
  const { read: maxRead, write: maxWrite } = parseLimits(await readPacket(input));
  return { maxRead, maxWrite };
}

async function readPacket(fd: number): Promise<Buffer> {
  return readFull(fd, packetLength(await readFull(fd, 4)));
}

async function readFull(fd: number, length: number): Promise<Buffer> {
  const out = Buffer.alloc(length);
  for (let at = 0; at < length;) {
    const { bytesRead } = await readAt(fd, out, at, length - at, null);
    if (bytesRead === 0) throw new CisternError('STORE_UNREACHABLE', 'the connection was closed');
    at += bytesRead;
  }
  return out;
}

const after = (ms: number): Promise<undefined> => new Promise(resolve => setTimeout(() => resolve(undefined), ms).unref());
