import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { RouteRole } from '../contract/route.ts';
import { CisternError } from '../errors.ts';
import { readOrMakeSecretFile } from '../secret-file.ts';

/** A new bearer token: 256 random bits. */
export const newToken = (): string => randomBytes(32).toString('base64url');

/** The token in `file`, made (0600) when there is none yet; `created` says whether this call made it. SECRET_FILE as `readSecretFile`. */
export function readOrCreateToken(file: string): { token: string; created: boolean } {
  const { text: token, created } = readOrMakeSecretFile(file, newToken);
  if (token.length < 16)
    throw new CisternError('SECRET_FILE', `reading ${file}: it holds less than 16 characters`, {
      action: 'Remove it to have a new token made.',
    });
  return { token, created };
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
