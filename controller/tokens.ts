import { timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { RouteRole } from '../shared/contract/route.ts';
import { CisternError } from '../shared/errors.ts';
import { bearerOf, type Caller, tokenHash } from '../shared/http/auth.ts';
import { Role } from '../shared/model.ts';
import type { Database } from './db/database.ts';
import type { Row } from './db/schema.ts';

/** Name of the token of the token file. It is in no table, so that no request can take it away. */
export const FIRST_TOKEN = 'admin';
/** How soon what is still open is cut once its token has expired. */
const SWEEP_MS = 1000;

/** The tokens of the API: kept by their hashes, here and in the database, and looked up in memory. */
export interface Tokens {
  /** Who sends this request. UNAUTHORIZED where its token is none or has ended, FORBIDDEN where its role is less than `role`. */
  authenticate(req: IncomingMessage, role: RouteRole): Caller;
  /** To be called once a row has been written, */
  add(row: Row<'tokens'>): void;
  /** or removed: what is open with this token is cut. */
  drop(id: string): void;
  close(): void;
}

interface Held {
  caller: Caller;
  hash: Buffer;
  /** Milliseconds since 1970; Infinity: never. */
  expires: number;
  /** To be called when it ends, one for each thing that is open with it. */
  open: Set<() => void>;
}

/** Reads the tokens of the database; `first` is that of the token file, an admin. */
export async function openTokens(db: Database, first: string): Promise<Tokens> {
  const byHash = new Map<string, Held>();
  const byId = new Map<string, Held>();

  const hold = (name: string, role: Role, hash: Buffer, expiresAt: string | null): Held => {
    const open = new Set<() => void>();
    const onEnd = (listener: () => void) => {
      open.add(listener);
      return () => open.delete(listener);
    };
    const held = { caller: { name, role, onEnd }, hash, expires: expiresAt === null ? Infinity : Date.parse(expiresAt), open };
    byHash.set(hash.toString('hex'), held);
    return held;
  };
  const add = (row: Row<'tokens'>): void =>
    void byId.set(row.id, hold(row.name, row.role, Buffer.from(row.hash, 'hex'), row.expires_at));
  const cut = (held: Held): void => {
    for (const end of [...held.open]) end();
  };

  hold(FIRST_TOKEN, 'admin', tokenHash(first), null);
  for (const row of await db.read.selectFrom('tokens').selectAll().execute()) add(row);
  const sweep = setInterval(() => {
    const now = Date.now();
    for (const held of byId.values()) if (held.expires <= now) cut(held);
  }, SWEEP_MS).unref();

  return {
    authenticate(req, role) {
      const given = bearerOf(req);
      if (!given) throw new CisternError('UNAUTHORIZED', 'the request has no bearer token');
      const hash = tokenHash(given);
      const held = byHash.get(hash.toString('hex'));
      if (!held || !timingSafeEqual(held.hash, hash))
        throw new CisternError('UNAUTHORIZED', 'the bearer token is none of this controller');
      const { name, role: own } = held.caller;
      if (held.expires <= Date.now())
        throw new CisternError('UNAUTHORIZED', `the token "${name}" expired at ${new Date(held.expires).toISOString()}`);
      if (!includes(own, role))
        throw new CisternError(
          'FORBIDDEN',
          `${req.method} ${req.url?.split('?')[0]} needs the role ${role}; the token "${name}" has the role ${own}`,
        );
      return held.caller;
    },
    add,
    drop(id) {
      const held = byId.get(id);
      if (!held) return;
      byId.delete(id);
      byHash.delete(held.hash.toString('hex'));
      cut(held);
    },
    close: () => clearInterval(sweep),
  };
}

/** Whether what wants the role `wanted` is open to one with the role `own`. */
export const includes = (own: RouteRole, wanted: RouteRole): boolean =>
  wanted === 'anyone' || Role.options.indexOf(own as Role) >= Role.options.indexOf(wanted as Role);
