import { lookup } from 'node:dns/promises';
import { request as httpRequest, type IncomingMessage, type RequestOptions } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { isIP, type LookupFunction } from 'node:net';
import { CisternError } from '../../shared/errors.ts';
import { abortReason, throwIfAborted } from './run.ts';
import { allowedAddresses, hostOf, parseUrl, redact, type AllowList } from './url-guard.ts';

const REDIRECTS = 5;

export interface Answer {
  response: IncomingMessage;
  /** Where it came from in the end. */
  url: URL;
}

/**
 * GET with redirects. Each host is resolved once, its addresses are judged, and the connection goes to exactly those. User and
 * password of `start` are sent to its origin only. Throws URL_REFUSED, URL_FAILED, or the error of the connection as it is.
 */
export async function get(start: URL, headers: Record<string, string>, allowed: AllowList, signal: AbortSignal): Promise<Answer> {
  let url = start;
  for (let hop = 0; hop <= REDIRECTS; hop++) {
    const addresses = allowedAddresses(url, await resolve(hostOf(url), signal), allowed);
    const auth = url.origin === start.origin ? credentials(start) : undefined;
    const response = await send(url, { headers, signal, lookup: pinned(addresses), ...(auth === undefined ? {} : { auth }) });
    const { statusCode = 0 } = response;
    if (statusCode < 300 || statusCode > 399) return { response, url };
    response.destroy();
    const { location } = response.headers;
    if (location === undefined)
      throw new CisternError('URL_FAILED', `${redact(url)}: answered ${statusCode} without saying where to`);
    const next = parseUrl(location, url);
    if (url.protocol === 'https:' && next.protocol === 'http:')
      throw new CisternError(
        'URL_REFUSED',
        `${redact(url)}: redirects from https to ${redact(next)}, which anybody on the way can change`,
      );
    url = next;
  }
  throw new CisternError('URL_FAILED', `${redact(start)}: more than ${REDIRECTS} redirects`);
}

async function resolve(host: string, signal: AbortSignal): Promise<string[]> {
  if (isIP(host) !== 0) return [host];
  throwIfAborted(signal);
  const aborted = Promise.withResolvers<never>();
  const onAbort = (): void => aborted.reject(abortReason(signal));
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    // getaddrinfo cannot be stopped; one that is not waited for any more ends by itself.
    const found = await Promise.race([lookup(host, { all: true, verbatim: true }), aborted.promise]);
    return found.map(entry => entry.address);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

/** In place of DNS: a second question could be answered with another address. */
const pinned = (addresses: string[]): LookupFunction => {
  const entries = addresses.map(address => ({ address, family: isIP(address) }));
  return (_host, options, done) => {
    if (options.all === true) done(null, entries);
    else done(null, entries[0]?.address ?? '', entries[0]?.family);
  };
};

function credentials(url: URL): string | undefined {
  if (url.username === '' && url.password === '') return undefined;
  try {
    return `${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}`;
  } catch {
    throw new CisternError('BAD_REQUEST', `${redact(url)}: user or password is not validly percent-encoded`);
  }
}

/** TLS certificates are verified against the name in the URL, whatever NODE_TLS_REJECT_UNAUTHORIZED in the environment says. */
function send(url: URL, options: RequestOptions): Promise<IncomingMessage> {
  const request = url.protocol === 'https:' ? httpsRequest : httpRequest;
  const target = {
    host: hostOf(url),
    port: url.port === '' ? undefined : url.port,
    path: url.pathname + url.search,
    agent: false as const,
    rejectUnauthorized: true,
  };
  return new Promise((done, failed) =>
    request({ ...options, ...target }, done)
      .on('error', failed)
      .end(),
  );
}
