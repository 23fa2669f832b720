import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import type { RouteRole } from '../contract/route.ts';
import { CisternError } from '../errors.ts';

/** A new bearer token: 256 random bits. */
export const newToken = (): string => randomBytes(32).toString('base64url');

/** The token in `file`, made (0600) when there is none yet; `created` says whether this call made it. */
export function readOrCreateToken(file: string): { token: string; created: boolean } {
  if (existsSync(file)) {
    const token = readFileSync(file, 'utf8').trim();
    if (token.length < 16)
      throw new CisternError(
        'BAD_REQUEST',
        `the token file ${file} holds less than 16 characters; remove it to have a new token made`,
      );
    return { token, created: false };
  }
  const token = newToken();
  writeFileSync(file, `${token}\n`, { mode: 0o600, flag: 'wx' });
  chmodSync(file, 0o600);
  return { token, created: true };
}

/** SHA-256 of a token: what is compared and stored, so that times and tables tell nothing of the token. */
export const tokenHash = (token: string): Buffer => createHash('sha256').update(token).digest();

/** The bearer token of a request, or undefined. */
export function bearerOf(req: IncomingMessage): string | undefined {
  const [scheme, token] = (req.headers.authorization ?? '').split(' ');
  return scheme?.toLowerCase() === 'bearer' && token ? token : undefined;
}

/** Who sent a request, as far as its token tells. */
export interface Caller {
  /** Name of the token, or id of the host whose token it is. */
  name: string;
  role: RouteRole;
  /** Calls `listener` when the token ends while something is still open with it; returns how to stop. */
  onEnd(listener: () => void): () => void;
}

/** The caller of routes that want no token. */
export const NOBODY: Caller = { name: '', role: 'anyone', onEnd: () => () => undefined };

/** A check that lets only requests with `token` pass, which has one holder and lasts as long as the service. */
export function requireToken(token: string, holder: Caller): (req: IncomingMessage) => Caller {
  const expected = tokenHash(token);
  return req => {
    const given = bearerOf(req);
    if (!given || !timingSafeEqual(tokenHash(given), expected))
      throw new CisternError(
        'UNAUTHORIZED',
        given ? 'the bearer token is not the one of this service' : 'the request has no bearer token',
      );
    return holder;
  };
}
