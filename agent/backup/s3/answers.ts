/** What the errors of an S3 service mean. Its codes: "Error responses" in the Amazon S3 API reference, rgw_common.cc of Ceph. */
import type { ErrorCode } from '../../../shared/errors.ts';

const CODES: Readonly<Record<string, ErrorCode>> = {
  InvalidAccessKeyId: 'STORE_AUTH',
  SignatureDoesNotMatch: 'STORE_AUTH',
  RequestTimeTooSkewed: 'STORE_AUTH',
  AuthorizationHeaderMalformed: 'STORE_AUTH',
  AccessDenied: 'STORE_PERMISSION',
  AccountProblem: 'STORE_PERMISSION',
  UserSuspended: 'STORE_PERMISSION',
  NoSuchBucket: 'STORE_CONFIG',
  PermanentRedirect: 'STORE_CONFIG',
  NoSuchKey: 'OBJECT_MISSING',
  NoSuchUpload: 'OBJECT_MISSING',
  NotFound: 'OBJECT_MISSING',
  QuotaExceeded: 'STORE_FULL',
  EntityTooLarge: 'STORE_LIMIT',
  PreconditionFailed: 'DIGEST_MISMATCH',
  SlowDown: 'STORE_BUSY',
  ServiceUnavailable: 'STORE_BUSY',
  TooManyRequests: 'STORE_BUSY',
  // the body did not arrive as it was sent, or not in time: to be sent again
  XAmzContentSHA256Mismatch: 'STORE_UNREACHABLE',
  BadDigest: 'STORE_UNREACHABLE',
  RequestTimeout: 'STORE_UNREACHABLE',
};
const STATUSES: Readonly<Record<number, ErrorCode>> = {
  401: 'STORE_AUTH',
  403: 'STORE_PERMISSION',
  404: 'OBJECT_MISSING',
  412: 'DIGEST_MISMATCH',
  429: 'STORE_BUSY',
  503: 'STORE_BUSY',
  507: 'STORE_FULL',
};
const TLS = /CERT|SELF_SIGNED|UNABLE_TO_VERIFY|UNABLE_TO_GET|ALTNAME|ERR_SSL|ERR_TLS|EPROTO/;
const LONGEST = 300;

export interface Answer {
  status: number;
  /** `Code` of the error document; '' where there is none, as for HEAD. */
  code: string;
  message?: string | undefined;
  /** The Date header. */
  date?: string | undefined;
}

export function answerError(answer: Answer): { code: ErrorCode; words: string } {
  const { status, message, date } = answer;
  const code = (Object.hasOwn(CODES, answer.code) ? CODES[answer.code] : undefined) ?? STATUSES[status];
  const said = [status, answer.code, message && `(${message.slice(0, LONGEST)})`].filter(Boolean).join(' ');
  const words = `the server answered ${said}${answer.code === 'RequestTimeTooSkewed' ? skew(date) : ''}`;
  return { code: code ?? (status >= 500 ? 'STORE_UNREACHABLE' : 'STORE_CONFIG'), words };
}

function skew(date: string | undefined): string {
  const ahead = Math.round((Date.now() - Date.parse(date ?? '')) / 1000);
  if (!Number.isFinite(ahead)) return ': the clocks of host and server differ';
  return `: the clock of this host is ${Math.abs(ahead)} s ${ahead < 0 ? 'behind' : 'ahead of'} the server's`;
}

/** The parts of an error document that tell what happened. */
export function parseError(body: string): Pick<Answer, 'code' | 'message'> {
  const tag = (name: string): string | undefined => new RegExp(`<${name}>([^<]*)</${name}>`).exec(body)?.[1];
  return { code: tag('Code') ?? '', message: tag('Message') };
}

/** What a connection failed of; undefined for what is no failure of a connection. */
export function socketError(error: unknown): { code: ErrorCode; words: string } | undefined {
  const { code, message } = error as NodeJS.ErrnoException;
  if (typeof code !== 'string') return undefined;
  if (TLS.test(code))
    return { code: 'STORE_CONFIG', words: `its certificate is not one to trust (${code}): see "ca" and "endpoint"` };
  return { code: 'STORE_UNREACHABLE', words: (message || code).slice(0, LONGEST) };
}
