/** The SDK's client for everything but the bytes of images, with its errors as ours. */
import https from 'node:https';
import type { S3Client } from '@aws-sdk/client-s3';
import { CisternError, type ErrorCode } from '../../../shared/errors.ts';
import { shown } from '../../host/held.ts';
import { answerError, socketError } from './answers.ts';
import { bucketUrl, type S3Config } from './config.ts';

type Sdk = typeof import('@aws-sdk/client-s3');
/** Anything but putting an object together. */
const ANSWER_MS = 60_000;
const CONNECT_MS = 10_000;

export interface Control {
  sdk: Sdk;
  bucket: string;
  /** Sends a command; `what` begins the error when it fails. */
  ask<T>(what: string, send: (client: S3Client, options: { abortSignal: AbortSignal }) => Promise<T>, ms?: number): Promise<T>;
  /** Milliseconds that the server's clock was found to be ahead of ours, where that is much. */
  ahead(): number;
  close(): void;
}

export async function openControl(config: S3Config): Promise<Control> {
  const sdk = await import('@aws-sdk/client-s3'); // half a second and 30 MiB: only for those who use it
  const { endpoint, pathStyle } = bucketUrl(config);
  const client = new sdk.S3Client({
    endpoint: endpoint.href,
    region: config.region,
    forcePathStyle: pathStyle,
    credentials: { accessKeyId: config.accessKey, secretAccessKey: config.secretKey },
    // other services answer 411 or 501 to the checksums that Amazon has added since
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    requestHandler: {
      connectionTimeout: CONNECT_MS,
      httpAgent: { keepAlive: true },
      httpsAgent: new https.Agent({ keepAlive: true, ...(config.ca !== undefined && { ca: config.ca }) }),
    },
  });
  const closed = new AbortController();
  return {
    sdk,
    bucket: config.bucket,
    ask: async (what, send, ms = ANSWER_MS) => {
      const late = AbortSignal.timeout(ms);
      try {
        return await send(client, { abortSignal: AbortSignal.any([late, closed.signal]) });
      } catch (error) {
        if (late.aborted)
          throw new CisternError('STORE_UNREACHABLE', `${what}: no answer within ${ms / 1000} s`, { cause: error });
        throw controlError(sdk, error, what);
      }
    },
    ahead: () => client.config.systemClockOffset,
    close: () => {
      closed.abort();
      client.destroy();
    },
  };
}

function controlError(sdk: Sdk, error: unknown, what: string): unknown {
  const make = ({ code, words }: { code: ErrorCode; words: string }): CisternError =>
    new CisternError(code, shown(`${what}: ${words}`), { cause: error });
  if (error instanceof sdk.S3ServiceException) {
    const { name, message, $metadata, $response } = error;
    const status = $metadata.httpStatusCode ?? 0;
    const code = name === 'Unknown' || name === 'UnknownError' ? '' : name;
    return make(answerError({ status, code, message: message === 'UnknownError' ? '' : message, date: $response?.headers.date }));
  }
  const known = error instanceof Error ? socketError(error) : undefined;
  return known ? make(known) : new CisternError('STORE_UNREACHABLE', shown(`${what}: ${String(error)}`), { cause: error });
}
