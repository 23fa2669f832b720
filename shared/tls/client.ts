import { Agent } from 'node:https';
import { checkServerIdentity, type PeerCertificate } from 'node:tls';
import { CisternError } from '../errors.ts';
import { isLoopback } from './names.ts';

/** How a client proves who it is, and whom it will speak to. All of it is PEM. */
export interface ClientTls {
  ca: string;
  cert?: string;
  key?: string;
  /** The name that the other side's certificate must bear. */
  peer: string;
}

/** Connections that are verified against one authority, by address and by name. Sessions are not resumed: Node would not look at the names again. */
export const tlsAgent = ({ ca, cert, key, peer }: ClientTls): Agent =>
  new Agent({
    keepAlive: true,
    maxSockets: 64,
    maxCachedSessions: 0,
    minVersion: 'TLSv1.3',
    ca,
    cert,
    key,
    checkServerIdentity: (host: string, shown: PeerCertificate) =>
      checkServerIdentity(host, shown) ??
      (String(shown.subject?.CN) === peer
        ? undefined
        : new Error(`the certificate is made out to "${String(shown.subject?.CN)}", not to "${peer}"`)),
  });

/** TLS_REQUIRED for plain HTTP to another machine, before anything is sent there. */
export function refusePlain(baseUrl: string): void {
  const url = URL.parse(baseUrl);
  if (url?.protocol !== 'http:' || isLoopback(url.hostname)) return;
  throw new CisternError('TLS_REQUIRED', `${url.origin}: plain HTTP to another machine`);
}

/** Whether Node gave up a connection because of the other side's certificate. */
export const isTrustError = (code: string | undefined, message: string): boolean =>
  /^(CERT_|UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_|ERR_TLS_CERT|ERR_SSL_TLSV1|ERR_SSL_TLSV13|ERR_SSL_SSLV3_ALERT)/.test(code ?? '') ||
  /the certificate is made out to/.test(message);
