import { CisternError } from '../../shared/errors.ts';
import { newToken, tokenHash } from '../../shared/http/auth.ts';
import { newId } from '../../shared/id.ts';
import type { Token } from '../../shared/model.ts';
import { claimName, findToken } from '../db/find.ts';
import type { Row } from '../db/schema.ts';
import { FIRST_TOKEN } from '../tokens.ts';
import type { Api, Handlers } from './api.ts';
import { pageOf } from './paging.ts';

/** All of them are held in memory. */
const MOST = 1000;

const toToken = (row: Row<'tokens'>): Token => ({
  id: row.id,
  name: row.name,
  role: row.role,
  expiresAt: row.expires_at,
  createdAt: row.created_at,
  by: row.made_by,
});

export function tokenHandlers(api: Api): Handlers<'listTokens' | 'createToken' | 'deleteToken'> {
  const { db, events, tokens } = api.services;
  return {
    async listTokens({ query }) {
      const page = await pageOf(db.read.selectFrom('tokens').selectAll(), query);
      return { items: page.rows.map(toToken), next: page.next };
    },
    async createToken({ body }, { caller }) {
      const now = new Date().toISOString();
      const expires = body.expiresAt === undefined ? null : new Date(body.expiresAt).toISOString();
      if (expires !== null && expires <= now)
        throw new CisternError('BAD_REQUEST', `expiresAt: ${expires} is over already; it is ${now} here`);
      const token = newToken();
      const row = await db.write(async trx => {
        if (body.name === FIRST_TOKEN)
          throw new CisternError('NAME_TAKEN', `"${FIRST_TOKEN}" is the token of the controller's token file`);
        await claimName(trx, 'tokens', 'token', body.name);
        const { n } = await trx
          .selectFrom('tokens')
          .select(e => e.fn.countAll<number>().as('n'))
          .executeTakeFirstOrThrow();
        if (n >= MOST)
          throw new CisternError('WRONG_STATE', `there are ${n} tokens, which is the most; delete some of them first`);
        const made: Row<'tokens'> = {
          id: newId(),
          name: body.name,
          role: body.role,
          hash: tokenHash(token).toString('hex'),
          expires_at: expires,
          created_at: now,
          made_by: caller.name,
        };
        await trx.insertInto('tokens').values(made).execute();
        const words = `token ${made.name} was made with the role ${made.role}`;
        await events.append(trx, 'token.created', { kind: 'token', id: made.id }, words, caller.name);
        return made;
      });
      tokens.add(row);
      return { ...toToken(row), token };
    },
    async deleteToken({ params }, { caller }) {
      const { id } = await db.write(async trx => {
        const row = await findToken(trx, params.ref);
        await trx.deleteFrom('tokens').where('id', '=', row.id).execute();
        await events.append(trx, 'token.deleted', { kind: 'token', id: row.id }, `token ${row.name} was deleted`, caller.name);
        return row;
      });
      tokens.drop(id);
    },
  };
}
