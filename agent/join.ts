import { createHash } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync } from 'node:fs';
import { text } from 'node:stream/consumers';
import { connect, type DetailedPeerCertificate } from 'node:tls';
import { parseArgs } from 'node:util';
import { execa } from 'execa';
import { loadConfig } from '../shared/config.ts';
import { joinRoutes } from '../shared/contract/operations.ts';
import { CisternError, toProblem } from '../shared/errors.ts';
import { createClient } from '../shared/http/client.ts';
import { readSecretFile } from '../shared/secret-file.ts';
import { CONTROLLER_NAME } from '../shared/tls/names.ts';
import { newRequest } from '../shared/tls/request.ts';
import { AgentConfig } from './config.ts';
import { writeIdentity } from './identity.ts';

const USAGE = `usage: cistern-agent join URL --ca-fingerprint HEX [--token-file PATH | --token TOKEN] [--config PATH]
The token comes from the file (-: standard input), else from CISTERN_JOIN_TOKEN. "cistern host add NAME" prints all of it.
`;
const CONFIG = '/etc/cistern/agent.json';
const UNIT = 'cistern-agent.service';
const CONNECT_MS = 10_000;

export interface Invited {
  url: string;
  fingerprint: string;
  token: string;
}

/** Joins the controller at `url`: makes a key, has it certified, and keeps both in the agent's state folder. Returns the id of the host. */
export async function joinController(config: AgentConfig, { url, fingerprint, token }: Invited): Promise<string> {
  if (URL.parse(url)?.protocol !== 'https:')
    throw new CisternError('TLS_REQUIRED', `joining ${url}: it does not begin with https`);
  const ca = await fetchAuthority(new URL(url), fingerprint.replaceAll(':', '').toLowerCase());
  const { key, csr } = await newRequest();
  const controller = createClient(joinRoutes, {
    baseUrl: url,
    tls: () => ({ ca, peer: CONTROLLER_NAME }),
    unreachable: 'CONTROLLER_UNREACHABLE',
  });
  try {
    const { hostId, certificate } = await controller.join({ body: { token, csr, port: config.port } });
    mkdirSync(config.stateDir, { recursive: true, mode: 0o700 });
    chmodSync(config.stateDir, 0o700);
    writeIdentity(config.stateDir, { hostId, controller: url, ca, certificate, key, since: Date.now() });
    return hostId;
  } finally {
    controller.close();
  }
}

/**
 * The authority's certificate, which the controller sends along with its own. Nothing is sent to it here and nothing of it believed but
 * what the fingerprint proves, so this one connection is not verified by TLS; all that follow are, against this certificate.
 */
async function fetchAuthority(url: URL, fingerprint: string): Promise<string> {
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const socket = connect({ host, port: Number(url.port || 443), minVersion: 'TLSv1.3', rejectUnauthorized: false });
  const { promise, resolve, reject } = Promise.withResolvers<DetailedPeerCertificate>();
  socket.once('secureConnect', () => resolve(socket.getPeerCertificate(true)));
  socket.once('error', reject).once('close', () => reject(new Error('it closed the connection')));
  const late = setTimeout(() => reject(new Error(`no answer within ${CONNECT_MS / 1000} s`)), CONNECT_MS);
  try {
    let shown = await promise;
    for (let depth = 0; depth < 5; depth++) {
      const found = createHash('sha256').update(shown.raw).digest('hex');
      if (found === fingerprint)
        return `-----BEGIN CERTIFICATE-----\n${shown.raw.toString('base64').replace(/.{1,64}/g, '$&\n')}-----END CERTIFICATE-----\n`;
      if (!shown.issuerCertificate || shown.issuerCertificate === shown) break;
      shown = shown.issuerCertificate;
    }
  } catch (cause) {
    throw new CisternError('CONTROLLER_UNREACHABLE', `joining ${url.origin}: ${(cause as Error).message}`, { cause });
  } finally {
    clearTimeout(late);
    socket.on('error', () => undefined).destroy();
  }
  throw new CisternError('CA_MISMATCH', `joining ${url.origin}: none of its certificates has the fingerprint ${fingerprint}`);
}

/** `cistern-agent join`: joins, then starts the service where it is installed. Returns the exit code. */
export async function runJoin(args: string[]): Promise<number> {
  try {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: {
        'ca-fingerprint': { type: 'string' },
        'token-file': { type: 'string' },
        token: { type: 'string' },
        config: { type: 'string' },
      },
    });
    const fingerprint = values['ca-fingerprint'];
    if (positionals.length !== 1 || fingerprint === undefined) return (process.stderr.write(USAGE), 2);
    const file = values.config ?? (existsSync(CONFIG) ? CONFIG : undefined);
    const config = loadConfig(AgentConfig, 'CISTERN_AGENT', file);
    const token = (values.token ?? (await readToken(values['token-file']))).trim();
    const hostId = await joinController(config, { url: positionals[0]!, fingerprint, token });
    process.stdout.write(`This host has joined as ${hostId}.\n`);
    if (values.config === undefined && existsSync('/run/systemd/system') && existsSync(`/etc/systemd/system/${UNIT}`)) {
      await execa('systemctl', ['enable', UNIT], { timeout: 60_000 });
      await execa('systemctl', ['restart', UNIT], { timeout: 120_000 });
      process.stdout.write('cistern-agent runs, and starts at every boot.\n');
    } else process.stdout.write('Start cistern-agent now, or start it again where it runs.\n');
    return 0;
  } catch (error) {
    const { code, detail, action } = toProblem(error);
    process.stderr.write(`cistern-agent: ${code}: ${detail}\n${action}\n`);
    return 1;
  }
}

async function readToken(file: string | undefined): Promise<string> {
  if (file === '-') return text(process.stdin);
  if (file !== undefined) return readSecretFile(file);
  const token = process.env.CISTERN_JOIN_TOKEN;
  if (token) return token;
  throw new CisternError('BAD_REQUEST', 'joining: there is no token', { action: USAGE.trim() });
}
