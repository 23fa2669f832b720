import { createHash, type Hash } from 'node:crypto';
import { open, rm, type FileHandle } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
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
  /** No byte for so long is TRANSFER_STALLED. */
  stallSeconds: number;
  signal?: AbortSignal | undefined;
  /** In bytes; total is null where the server does not tell. */
  progress?: (done: number, total: number | null) => void;
}

const TRIES = 3;
/** Before the second try, in ms; doubles. */
const BACKOFF = 300;
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
    const download: Download = { file, hash: createHash('sha256'), received: 0, validator: undefined };
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
      await receive(response, total, from, download, options, () => timer.refresh());
    } finally {
      response.destroy();
    }
  } catch (error) {
    if (stall.signal.aborted && !options.signal?.aborted)
      throw new CisternError(
        'TRANSFER_STALLED',
        `fetching ${redact(url)}: no byte came for ${options.stallSeconds} s, after ${download.received} bytes`,
      );
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/** Reads the answer's head: where its bytes go, and how many there will be in all (null: not told). */
async function begin(response: IncomingMessage, from: URL, download: Download, maxBytes: number): Promise<number | null> {
  const { statusCode, headers } = response;
  if (statusCode === 206) {
    const start = /^bytes (\d+)-\d+\/(?:\d+|\*)$/.exec(headers['content-range'] ?? '')?.[1];
    if (Number(start) !== download.received)
      throw new CisternError(
        'URL_FAILED',
        `${redact(from)}: asked for bytes from ${download.received}, got "${headers['content-range']}"`,
      );
  } else if (statusCode === 200) {
    await download.file.truncate(0).catch(whileWriting);
    Object.assign(download, { received: 0, hash: createHash('sha256') });
    const { etag } = headers;
    download.validator = etag === undefined || etag.startsWith('W/') ? undefined : etag;
  } else throw new CisternError('URL_FAILED', `${redact(from)}: answered ${statusCode} ${response.statusMessage}`);
  const length = headers['content-length'];
  if (length === undefined) return null;
  const total = download.received + Number(length);
  if (total > maxBytes) throw tooLarge(from, `is ${total} bytes`, maxBytes);
  return total;
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
