import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { z } from 'zod';
import { controllerRoutes } from '../../shared/contract/controller.ts';
import { CisternError } from '../../shared/errors.ts';
import type { ClientTls } from '../../shared/tls/client.ts';
import { CONTROLLER_NAME } from '../../shared/tls/names.ts';
import { type Client, createClient } from '../../shared/http/client.ts';

export type ControllerClient = Client<typeof controllerRoutes>;

/** Where the controller is and how to be let in. */
export interface Connection {
  url: string;
  token: string | undefined;
  /** The certificate of the controller's authority, where it is not one that Node believes. */
  tls?: ClientTls;
}

const DEFAULT_URL = 'http://127.0.0.1:7070';
const DEFAULT_TOKEN_FILE = '/var/lib/cistern-controller/token';

const ConfigFile = z.strictObject({ url: z.string().optional(), tokenFile: z.string().optional(), ca: z.string().optional() });

/** The user's configuration file: `$XDG_CONFIG_HOME/cistern/config.json`, else `~/.config/cistern/config.json`. */
export const configPath = (env: NodeJS.ProcessEnv): string =>
  join(env.XDG_CONFIG_HOME || join(env.HOME ?? homedir(), '.config'), 'cistern', 'config.json');

/**
 * The connection by flags, then environment (CISTERN_URL, CISTERN_TOKEN, CISTERN_TOKEN_FILE), then configuration file, then
 * defaults. Throws BAD_REQUEST for a bad URL or configuration file, UNAUTHORIZED for a named token file that cannot be read.
 */
export function resolveConnection(flags: { url?: string; tokenFile?: string; ca?: string }, env: NodeJS.ProcessEnv): Connection {
  const file = configPath(env);
  const config = readConfig(file);
  const url = flags.url ?? (env.CISTERN_URL || config.url || DEFAULT_URL);
  if (!/^https?:$/.test(URL.parse(url)?.protocol ?? ''))
    throw new CisternError('BAD_REQUEST', `the controller's address "${url}" is not an http(s) URL`);
  const configured = config.ca === undefined ? undefined : resolve(dirname(file), expandHome(config.ca, env));
  const ca = flags.ca ?? (env.CISTERN_CA || configured);
  return {
    url,
    ...(ca !== undefined && { tls: { ca: readCa(expandHome(ca, env)), peer: CONTROLLER_NAME } }),
    token: findToken(
      flags.tokenFile,
      env,
      config.tokenFile === undefined ? undefined : resolve(dirname(file), expandHome(config.tokenFile, env)),
    ),
  };
}

function readCa(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw new CisternError('BAD_REQUEST', `reading the certificate ${file}: ${(cause as Error).message}`, { cause });
  }
}

function findToken(flag: string | undefined, env: NodeJS.ProcessEnv, configured: string | undefined): string | undefined {
  if (flag !== undefined) return readToken(expandHome(flag, env));
  if (env.CISTERN_TOKEN) return env.CISTERN_TOKEN.trim();
  if (env.CISTERN_TOKEN_FILE) return readToken(expandHome(env.CISTERN_TOKEN_FILE, env));
  if (configured !== undefined) return readToken(configured);
  try {
    return readFileSync(DEFAULT_TOKEN_FILE, 'utf8').trim();
  } catch {
    // not this machine's controller, or not for this user: the request goes without, and the controller says what it wants
    return undefined;
  }
}

function readToken(
  file: string,
  action = 'Name a readable file with the controller\'s token by --token-file, CISTERN_TOKEN_FILE or "tokenFile" in the configuration file.',
): string {
  try {
    const token = readFileSync(file, 'utf8').trim();
    if (token === '' || /\s/.test(token)) throw new Error('it does not hold one token');
    return token;
  } catch (cause) {
    throw new CisternError('UNAUTHORIZED', `reading the token file ${file}: ${(cause as Error).message}`, { cause, action });
  }
}

/** The token of an agent in `file`, which may begin with `~/`. Throws UNAUTHORIZED where there is none. */
export const readAgentToken = (file: string, env: NodeJS.ProcessEnv): string =>
  readToken(
    expandHome(file, env),
    "Copy the agent's token file from the host (/var/lib/cistern-agent/token there) and name the copy by --agent-token-file.",
  );

function readConfig(file: string): z.infer<typeof ConfigFile> {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (cause) {
    if (['ENOENT', 'ENOTDIR'].includes((cause as NodeJS.ErrnoException).code ?? '')) return {};
    throw new CisternError('BAD_REQUEST', `reading the configuration file ${file}: ${(cause as Error).message}`, { cause });
  }
  const parsed = z.preprocess(value => JSON.parse(String(value)) as unknown, ConfigFile);
  try {
    return parsed.parse(text);
  } catch (cause) {
    const why = cause instanceof z.ZodError ? z.prettifyError(cause) : (cause as Error).message;
    throw new CisternError('BAD_REQUEST', `the configuration file ${file} is not valid: ${why}`, { cause });
  }
}

/** `~/x` in the home of the user. */
export const expandHome = (path: string, env: NodeJS.ProcessEnv): string =>
  path === '~' || path.startsWith('~/') ? join(env.HOME ?? homedir(), path.slice(1)) : path;

/** A client of the controller's whole API. */
export const connect = (connection: Connection, timeoutSeconds?: number): ControllerClient =>
  createClient(controllerRoutes, {
    baseUrl: connection.url,
    token: connection.token,
    ...(connection.tls && { tls: () => connection.tls! }),
    timeoutSeconds,
    unreachable: 'CONTROLLER_UNREACHABLE',
  });
