import { createHash, type Hash } from 'node:crypto';
import { open, rm, type FileHandle } from 'node:fs/promises';
import { STATUS_CODES, type IncomingMessage } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { CisternError, wrapError } from '../../shared/errors.ts';
import { get } from './fetch-request.ts';
import { abortReason, throwIfAborted } from './run.ts';
import { writeAll } from './sparse.ts';
import { spoolError } from './spool-error.ts';
import { allowList, parseUrl, redact, type AllowList } from './url-guard.ts';

export interface FetchOptions {
  url: string;
  /** Absolute path of a file that is not there yet. */
  target: string;
  /** Addresses and CIDR blocks that may be connected to although they are not public. */
  allow: readonly string[];
  /** More than so many is IMAGE_TOO_LARGE. */
  maxBytes: number;
  /** Less than `PROGRESS` bytes in so long is TRANSFER_STALLED. */
  stallSeconds: number;
  signal?: AbortSignal | undefined;
  /** In bytes; total is null where the server does not tell. */
  progress?: (done: number, total: number | null) => void;
}

const TRIES = 3;
/** Before the second try, in ms; doubles. */
const BACKOFF = 300;
/** So many bytes are progress: a server that sends one now and then would keep a place and a file for ever. */
const PROGRESS = 64 * 1024;
/** What a broken connection looks like: worth another try, unlike an answer. */
const BROKEN = [
  'ECONNRESET',
  'ECONNREFUSED',
  'ECONNABORTED',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENETDOWN',
  'EPIPE',
  'ETIMEDOUT',
  'EAI_AGAIN',
];

/**
 * Downloads a URL that a user gave into a new file, and tells size and SHA-256 of the bytes received. A broken connection is taken
 * up again where it broke if the server can. On failure or cancel the target is gone. Throws BAD_REQUEST, URL_REFUSED,
 * URL_FAILED, IMAGE_TOO_LARGE, TRANSFER_STALLED, CANCELLED, NO_CAPACITY, IO_ERROR; no error shows user, password or query.
 */
export async function fetchToFile(options: FetchOptions): Promise<{ size: number; sha256: string }> {
  const url = parseUrl(options.url);
  const allowed = allowList(options.allow);
  throwIfAborted(options.signal);
  const file = await open(options.target, 'wx').catch((error: unknown) => {
    throw spoolError(error, `making ${options.target}`);
  });
  try {
    await using _ = file;
    const download: Download = { file, hash: createHash('sha256'), received: 0, total: undefined, validator: undefined };
    await withRetries(url, options, () => attempt(url, download, allowed, options));
    return { size: download.received, sha256: download.hash.digest('hex') };
  } catch (error) {
    await rm(options.target, { force: true });
    throw error;
  }
}

/** What has arrived so far. */
interface Download {
  file: FileHandle;
  hash: Hash;
  received: number;
  /** Bytes in all, as the first answer told; null: it did not. A later answer must not tell otherwise. */
  total: number | null | undefined;
  /** The strong ETag of what has arrived: only more of the very same may follow, else it begins anew. */
  validator: string | undefined;
}

async function withRetries(url: URL, options: FetchOptions, once: () => Promise<void>): Promise<void> {
  for (let tried = 1; ; tried++) {
    try {
      return await once();
    } catch (error) {
      if (options.signal?.aborted) throw abortReason(options.signal);
      const { code } = error as NodeJS.ErrnoException;
      if (error instanceof CisternError || code === undefined || !BROKEN.includes(code))
        throw wrapError(error, 'URL_FAILED', `fetching ${redact(url)}`);
      // A refused connection to several addresses comes without a message.
      const came = (error as Error).message || code;
      if (tried === TRIES)
        throw new CisternError('URL_FAILED', `fetching ${redact(url)}: ${came}, in ${TRIES} tries`, { cause: error });
    }
    await sleep(BACKOFF * 2 ** (tried - 1), undefined, options.signal === undefined ? {} : { signal: options.signal }).catch(() =>
      throwIfAborted(options.signal),
    );
  }
}

async function attempt(url: URL, download: Download, allowed: AllowList, options: FetchOptions): Promise<void> {
  const stall = new AbortController();
  const timer = setTimeout(() => stall.abort(), options.stallSeconds * 1000);
  let seen = download.received;
  const signal = options.signal === undefined ? stall.signal : AbortSignal.any([options.signal, stall.signal]);
  try {
    const headers: Record<string, string> = { 'user-agent': 'cistern', 'accept-encoding': 'identity' };
    if (download.received > 0 && download.validator !== undefined) {
      headers['range'] = `bytes=${download.received}-`;
      headers['if-range'] = download.validator;
    }
    const { response, url: from } = await get(url, headers, allowed, signal);
    try {
      const total = await begin(response, from, download, options.maxBytes);
      seen = download.received;
      await receive(response, total, from, download, options, () => {
        if (download.received - seen < PROGRESS) return;
        seen = download.received;
        timer.refresh();
      });
    } finally {
      response.destroy();
    }
  } catch (error) {
    if (stall.signal.aborted && !options.signal?.aborted)
      throw new CisternError(
        'TRANSFER_STALLED',
        `fetching ${redact(url)}: ${came(download.received - seen)} for ${options.stallSeconds} s, after ${download.received} bytes`,
      );
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

const came = (bytes: number): string => (bytes > 0 ? `only ${bytes} bytes came` : 'no byte came');

/** Reads the answer's head: where its bytes go, and how many there will be in all (null: not told). */
async function begin(response: IncomingMessage, from: URL, download: Download, maxBytes: number): Promise<number | null> {
  const { statusCode = 0, headers } = response;
  const length = headers['content-length'] === undefined ? null : Number(headers['content-length']);
  let total = length;
  if (statusCode === 206) total = restOf(headers['content-range'] ?? '', from, download, length);
  else if (statusCode === 200) {
    await download.file.truncate(0).catch(whileWriting);
    Object.assign(download, { received: 0, total: undefined, hash: createHash('sha256') });
    const { etag } = headers;
    download.validator = etag === undefined || etag.startsWith('W/') ? undefined : etag;
  } else throw new CisternError('URL_FAILED', `${redact(from)}: answered ${statusCode} ${STATUS_CODES[statusCode] ?? ''}`);
  download.total ??= total;
  if (total !== null && total > maxBytes) throw tooLarge(from, `is ${total} bytes`, maxBytes);
  return total;
}

/** Size of the whole as the head of a partial answer tells. URL_FAILED unless it holds all that is missing, and nothing else. */
function restOf(range: string, from: URL, { received, total }: Download, length: number | null): number | null {
  const [, first, last, size] = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15}|\*)$/.exec(range) ?? [];
  const end = Number(last) + 1;
  const whole = size === '*' ? (total ?? null) : Number(size);
  // nothing is asked for by range before something has arrived
  const asked = received > 0 && Number(first) === received && (length === null || length === end - received);
  if (asked && end === (whole ?? end) && end === (total ?? end)) return end;
  throw new CisternError(
    'URL_FAILED',
    `${redact(from)}: asked for ${received > 0 ? `the bytes from ${received} on` : 'all bytes'}, got "${range.slice(0, 100)}" of ${total ?? 'an unknown size'}`,
  );
}

async function receive(
  response: IncomingMessage,
  total: number | null,
  from: URL,
  download: Download,
  options: FetchOptions,
  moved: () => void,
): Promise<void> {
  options.progress?.(download.received, total);
  for await (const chunk of response as AsyncIterable<Buffer>) {
    if (download.received + chunk.length > options.maxBytes) throw tooLarge(from, 'is larger', options.maxBytes);
    await writeAll(download.file, chunk, download.received).catch(whileWriting);
    download.hash.update(chunk);
    download.received += chunk.length;
    moved();
    options.progress?.(download.received, total);
  }
  if (total !== null && download.received !== total)
    throw Object.assign(new Error(`${download.received} bytes came instead of ${total}`), { code: 'ECONNRESET' });
}

const whileWriting = (error: unknown): never => {
  throw spoolError(error, 'writing the download');
};

const tooLarge = (from: URL, what: string, maxBytes: number): CisternError =>
  new CisternError(
    'IMAGE_TOO_LARGE',
    `${redact(from)} ${what}; at most ${maxBytes} bytes are taken (maxImageSize in the agent's configuration)`,
  );
