/** One qemu-nbd for one RBD image, for all lanes of a transfer: it speaks librbd, which Node cannot. */
import { once } from 'node:events';
import { join } from 'node:path';
import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { execa } from 'execa';
import { CisternError } from '../../shared/errors.ts';
import type { RangeEnd } from '../transfer/ends.ts';
import type { Cluster } from './cluster.ts';
import { cephError } from './errors.ts';
import { connectNbd, type Nbd } from './nbd.ts';
import type { ImageData } from './thread.ts';

/** From the start of qemu-nbd until the image is open: a cluster that is away is given up before. */
const OPEN_MS = 30_000;
const LOOK_MS = 20;
/** How long it may take to leave the image in good order; one that is killed keeps it open for half a minute more. */
const END_MS = 5000;
const CLIENTS = 64;

export interface Server {
  /** One lane; the first one starts qemu-nbd, the last one to be released ends it. */
  end(signal: AbortSignal): Promise<RangeEnd>;
}

interface Served {
  image: string;
  snapshot?: string | undefined;
  readOnly: boolean;
  /** For messages. */
  name: string;
}

interface Running {
  socket: string;
  /** What it said last. */
  words(): string;
  ended(): boolean;
  stop(): Promise<void>;
}

/** `name` is for messages. */
export function imageServer(cluster: Cluster, image: string, readOnly: boolean, name: string, snapshot?: string): Server {
  let running: Promise<Running> | undefined;
  let users = 0;

  const leave = async (mine: Promise<Running>): Promise<void> => {
    if (
      --users === 0 ||
      (await mine.then(
        r => r.ended(),
        () => true,
      ))
    ) {
      if (running === mine) running = undefined;
      await mine.then(
        r => r.stop(),
        () => undefined,
      );
    }
  };
  return {
    end: async signal => {
      const before = await running?.catch(() => undefined);
      if (before?.ended()) running = undefined; // killed under an earlier attempt
      const mine = (running ??= startNbd(cluster, { image, snapshot, readOnly, name }));
      users++;
      let left: Promise<void> | undefined;
      const release = (): Promise<void> => {
        signal.removeEventListener('abort', onAbort);
        return (left ??= leave(mine));
      };
      // no lane goes on after this: whoever waits for an answer of a cluster that hangs is woken
      const onAbort = (): void =>
        void mine.then(
          r => r.stop(),
          () => undefined,
        );
      signal.addEventListener('abort', onAbort, { once: true });
      try {
        const { socket, words } = await mine;
        signal.throwIfAborted();
        const data: ImageData = { socket, name };
        return {
          module: new URL('./thread.ts', import.meta.url).href,
          data,
          explain: async error => better(cluster, error, words()),
          release,
        };
      } catch (error) {
        await release();
        throw error;
      }
    },
  };
}

/** What qemu-nbd, or the cluster, says of a failure. */
async function better(cluster: Cluster, error: CisternError, words: string): Promise<CisternError> {
  const told = await cluster.fullOr(error);
  if (told.code !== 'STORE_UNREACHABLE' || words === '') return told;
  return new CisternError('STORE_UNREACHABLE', `${error.message}; it said: ${words.trim().slice(-400)}`, { cause: error });
}

/** An image behind a socket. Throws STORE_* errors, OBJECT_MISSING, TOOL_MISSING. */
export async function startNbd(cluster: Cluster, { image, snapshot, readOnly, name }: Served): Promise<Running> {
  const { pool, namespace, user } = cluster.config;
  const socket = join(cluster.sockets, `nbd-${randomBytes(6).toString('hex')}`);
  const file = {
    driver: 'rbd',
    pool,
    ...(namespace !== undefined && { namespace }),
    image,
    ...(snapshot !== undefined && { snapshot }),
    conf: cluster.conf,
    user,
  };
  const node = `json:${JSON.stringify({ driver: 'raw', file })}`;
  // it ends with its last client, and with this process: a killed agent leaves nothing that holds the image
  const args = ['--pdeathsig', 'TERM', '--', 'qemu-nbd', '--socket', socket, '--shared', String(CLIENTS), '--cache', 'none'];
  const child = execa('setpriv', [...args, ...(readOnly ? ['--read-only'] : []), '--', node], {
    stdin: 'ignore',
    stdout: 'ignore',
    stderr: 'pipe',
    buffer: false,
    reject: false,
    env: { PATH: `${process.env['PATH'] ?? '/usr/bin:/bin'}:/usr/sbin:/sbin`, LC_ALL: 'C' },
    extendEnv: false,
    forceKillAfterDelay: END_MS,
  });
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => (said = (said + chunk.toString('utf8')).slice(-4096)));
  let over = false;
  const end = child.then(() => void (over = true));
  let hold: Nbd | undefined;
  const stop = async (): Promise<void> => {
    child.kill();
    await end;
    await rm(socket, { force: true });
  };
  const tried = `opening ${name} with qemu-nbd`;
  const until = performance.now() + OPEN_MS;
  while (!hold) {
    if (performance.now() > until) {
      await stop();
      throw new CisternError('STORE_UNREACHABLE', `${tried}: no answer within ${OPEN_MS / 1000} s`);
    }
    if (over) {
      await stop();
      const result = await child;
      if (result.code === 'ENOENT' || /failed to execute/.test(said))
        throw new CisternError('TOOL_MISSING', `${tried}: there is no qemu-nbd; on Debian and Ubuntu it comes with qemu-utils`);
      throw cephError(tried, said);
    }
    await Promise.race([delay(LOOK_MS, undefined, { ref: false }), once(child.nodeChildProcess, 'exit')]).catch(() => undefined);
    hold = await connectNbd(socket, name).catch(() => undefined);
  }
  return { socket, words: () => said, ended: () => over, stop };
}
