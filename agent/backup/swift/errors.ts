/** What answers of Swift (and of Ceph, which speaks as Swift does) and broken connections mean. */
import type { ErrorCode } from '../../../shared/errors.ts';
import { EndError } from '../../transfer/end-error.ts';

/**
 * Status codes of the Object Storage API. 413 is a quota that is reached (middleware container_quotas, account_quotas), 498 a rate that
 * is (middleware ratelimit), 422 a body that does not match its ETag, 409 a large object whose segment is not the one that was put,
 * 412 an object that is another than If-Match says.
 */
const STATUS: Record<number, ErrorCode> = {
  401: 'STORE_AUTH',
  403: 'STORE_PERMISSION',
  404: 'OBJECT_MISSING',
  408: 'STORE_BUSY',
  409: 'DIGEST_MISMATCH',
  412: 'DIGEST_MISMATCH',
  413: 'STORE_FULL',
  422: 'STORE_UNREACHABLE', // it was damaged on the way: another try may bring it whole
  429: 'STORE_BUSY',
  498: 'STORE_BUSY',
  503: 'STORE_BUSY',
  507: 'STORE_FULL',
};

const WORDS: Record<number, string> = {
  409: 'a part of it is no longer what was stored',
  412: 'the object was changed meanwhile',
  422: 'what arrived is not what was sent',
};

/** The error that a status stands for; `said` is the body of the answer. */
export function statusError(status: number, tried: string, said = ''): EndError {
  const code = STATUS[status] ?? (status >= 500 ? 'STORE_UNREACHABLE' : 'IO_ERROR');
  const text = said
    .replaceAll(/<[^>]*>/g, ' ')
    .replaceAll(/\s+/g, ' ')
    .trim()
    .slice(0, 200);
  const words = [WORDS[status], text].filter(Boolean).join('; ');
  return new EndError(code, `${tried}: the server answered ${status}${words ? ` (${words})` : ''}`);
}

/** Codes of Node's TLS for a certificate that is not to be trusted (OpenSSL's X509_V_ERR_*). */
const CERTIFICATE = /CERT|SELF_SIGNED|VERIFY_LEAF|ALTNAME/;

/** The error that a connection which broke, or never came to be, stands for. */
export function socketError(error: unknown, tried: string): EndError {
  if (error instanceof EndError) return error;
  const { code = '', message } = error as NodeJS.ErrnoException;
  if (CERTIFICATE.test(code)) {
    const hint = 'if a private authority signed it, give its certificate as "ca"';
    return new EndError('STORE_CONFIG', `${tried}: the server's certificate is not trusted: ${message} (${hint})`, {
      cause: error,
    });
  }
  return new EndError('STORE_UNREACHABLE', `${tried}: ${message || code || 'the connection broke'}`, { cause: error });
}
