/** The control connection of an sftp store: everything but the bytes of images, through ssh2-sftp-client. */
import SftpClient from 'ssh2-sftp-client';
import { CisternError } from '../../../shared/errors.ts';
import { address, pinned, type SftpConfig } from './config.ts';
import { connectionError } from './errors.ts';
import { statusError } from './wire.ts';

const CONNECT_MS = 20_000;
/** For one answer to a small request. */
export const ANSWER_MS = 30_000;

/** ssh2's SFTP session, which ssh2-sftp-client hands out. */
export type Session = Awaited<ReturnType<SftpClient['connect']>>;

/** What a request is sent with: the client for what it does well, the session below it for what it lacks. */
export interface Live {
  client: SftpClient;
  session: Session;
}

export interface Control {
  /** Sends one request, on a connection opened on first use and again after it was lost. Throws STORE_* errors. */
  ask<T>(tried: string, request: (live: Live) => Promise<T>, limitMs?: number): Promise<T>;
  close(): Promise<void>;
}

export function control(config: SftpConfig): Control {
  let opening: Promise<Live> | undefined;
  const drop = (): void => void (opening = undefined);
  const live = async (): Promise<Live> => {
    const mine = (opening ??= open(config, drop));
    try {
      return await mine;
    } catch (error) {
      if (opening === mine) drop();
      throw error;
    }
  };
  return {
    ask: async (tried, request, limitMs = ANSWER_MS) => {
      const connection = await live();
      try {
        return await within(limitMs, `${tried} at ${address(config)}`, request(connection));
      } catch (error) {
        const known = requestError(error, `${tried} at ${address(config)}`);
        if (known.code === 'STORE_UNREACHABLE') {
          drop();
          void end(connection.client);
        }
        throw known;
      }
    },
    close: async () => {
      const last = opening;
      drop();
      if (last)
        await last.then(
          ({ client }) => end(client),
          () => undefined,
        ); // it never opened: its caller was told
    },
  };
}

/** A request of the session below, which takes a callback. */
export function answer<T>(send: (done: (error: Error | null | undefined, value: T) => void) => void): Promise<T> {
  return new Promise((resolve, reject) => send((error, value) => (error ? reject(error) : resolve(value))));
}

async function open(config: SftpConfig, lost: () => void): Promise<Live> {
  const { key, algorithms } = pinned(config);
  const quiet = (): void => undefined;
  const client = new SftpClient('cistern', { error: quiet, end: lost, close: lost });
  if (config.password !== undefined) {
    client.on(
      'keyboard-interactive',
      (_name: string, _text: string, _language: string, prompts: unknown[], finish: (answers: string[]) => void) =>
        finish(prompts.map(() => config.password!)),
    );
  }
  const tried = `connecting to ${address(config)}`;
  try {
    const connecting = client.connect({
      host: config.host,
      port: config.port,
      username: config.user,
      privateKey: config.privateKey,
      passphrase: config.passphrase,
      password: config.password,
      tryKeyboard: config.password !== undefined,
      algorithms: { serverHostKey: algorithms },
      hostVerifier: (offered: Buffer) => offered.toString('base64') === key,
      readyTimeout: CONNECT_MS - 2_000,
      keepaliveInterval: 15_000,
      keepaliveCountMax: 4,
    });
    const session = await within(CONNECT_MS, tried, connecting);
    // requests are a few hundred bytes: held back until the last one is acknowledged, each takes 44 ms instead of one
    beneath(client).setNoDelay(true);
    return { client, session };
  } catch (error) {
    await end(client);
    throw error instanceof CisternError ? error : connectionError(tried, (error as Error).message, error);
  }
}

/** Ends a connection; one that does not want to end is destroyed. */
async function end(client: SftpClient): Promise<void> {
  try {
    await within(2_000, 'closing', client.end());
  } catch {
    // it was dead already; what was asked of it has been reported to whoever asked
    beneath(client).destroy();
  }
}

/** The connection of ssh2 that the library stands on, which its types do not tell of. */
const beneath = (client: SftpClient): { setNoDelay(on: boolean): void; destroy(): void } =>
  (client as unknown as { client: ReturnType<typeof beneath> }).client;

async function within<T>(ms: number, tried: string, work: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(
    () => late.reject(new CisternError('STORE_UNREACHABLE', `${tried}: no answer within ${ms / 1000} s`)),
    ms,
  );
  try {
    return await Promise.race([work, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** SFTP status numbers stand in `code` as numbers; names there are of the library or of the network: the connection is gone. */
function requestError(error: unknown, tried: string): CisternError {
  if (error instanceof CisternError) return error;
  const { code, message } = error as { code?: number | string; message: string };
  const status = code === 'ENOENT' ? 2 : code;
  if (typeof status !== 'number') return connectionError(tried, message, error);
  const known = statusError(status, message, tried);
  return new CisternError(known.code, known.message, { cause: error });
}
