import { randomBytes } from 'node:crypto';
import type { Express, Request } from 'express';
import { joinRoutes } from '../../shared/contract/operations.ts';
import { CisternError } from '../../shared/errors.ts';
import { type Caller, newToken, tokenHash } from '../../shared/http/auth.ts';
import { bindRoutes } from '../../shared/http/bind.ts';
import { newId } from '../../shared/id.ts';
import { hostName } from '../../shared/tls/names.ts';
import { claimName, findHost } from '../db/find.ts';
import type { Row } from '../db/schema.ts';
import { claimUrl, insertHost } from '../workflows/host-rows.ts';
import type { Api, Handlers } from './api.ts';

/** How long an invitation is good. */
const INVITED_MS = 3_600_000;

/** Invitations: who may join. */
export function invitationHandlers({ services }: Api): Handlers<'inviteHost' | 'rejoinHost'> {
  const { db, authority, secureUrl, events } = services;
  const invite = async (
    by: string,
    choose: (
      trx: Parameters<Parameters<typeof db.write>[0]>[0],
    ) => Promise<Pick<Row<'invitations'>, 'name' | 'host_id' | 'cluster' | 'url'>>,
  ) => {
    const token = newToken();
    const expiresAt = new Date(Date.now() + INVITED_MS).toISOString();
    const { name } = await db.write(async trx => {
      const whom = await choose(trx);
      const row = { ...whom, hash: tokenHash(token).toString('hex'), expires_at: expiresAt, used_at: null };
      await trx.deleteFrom('invitations').where(e => e.or([e('name', '=', whom.name), e('expires_at', '<', new Date().toISOString())])).execute(); // prettier-ignore
      await trx.insertInto('invitations').values(row).execute();
      await events.append(trx, 'host.invited', null, `host ${whom.name} may join until ${expiresAt}`, by);
      return row;
    });
    return { name, url: secureUrl(), token, fingerprint: authority.fingerprint, expiresAt };
  };
  return {
    inviteHost: ({ body: { name, url, cluster } }, { caller }) =>
      invite(caller.name, async trx => {
        await claimName(trx, 'hosts', 'host', name);
        if (url !== undefined && !url.startsWith('https:'))
          throw new CisternError('TLS_REQUIRED', `${url}: a host that joins is spoken to by TLS`);
        return { name, host_id: null, cluster, url: url?.replace(/\/+$/, '') ?? null };
      }),
    rejoinHost: ({ params }, { caller }) =>
      invite(caller.name, async trx => {
        const host = await findHost(trx, params.ref);
        return { name: host.name, host_id: host.id, cluster: '', url: null };
      }),
  };
}

/** Where agents get their certificates. */
export function bindJoin(app: Express, { services }: Api, authenticate: (req: Request) => Promise<Caller>): void {
  const { db, authority, events, fleet } = services;
  const addressOf = (url: string): string => new URL(url).hostname.replace(/^\[|\]$/g, '');
  bindRoutes(
    app,
    joinRoutes,
    {
      async join({ body }, { req }) {
        const hash = tokenHash(body.token).toString('hex');
        const at = req.socket.remoteAddress!.replace(/^::ffff:/, '');
        const seen = `https://${at.includes(':') ? `[${at}]` : at}:${body.port}`;
        const invited = await db.read.selectFrom('invitations').selectAll().where('hash', '=', hash).executeTakeFirst();
        const url = invited?.url ?? seen;
        const id = invited?.host_id ?? newId();
        const generation = randomBytes(8).toString('hex');
        if (!invited) throw new CisternError('UNAUTHORIZED', 'the token is not one that lets a host join');
        const certificate = await authority.issue(body.csr, hostName(id, generation), [addressOf(url)]);
        await db.write(async trx => {
          const now = new Date().toISOString();
          const row = await trx.selectFrom('invitations').selectAll().where('hash', '=', hash).executeTakeFirst();
          if (!row || row.used_at !== null || row.expires_at <= now)
            throw new CisternError(
              'JOIN_REFUSED',
              `joining as host ${invited.name}: the token ${row?.used_at ? `was used at ${row.used_at}` : `expired at ${invited.expires_at}`}`,
            );
          await trx.updateTable('invitations').set({ used_at: now }).where('hash', '=', hash).execute();
          const { name, cluster } = row;
          const fresh = {
            url,
            generation,
            status: 'disconnected' as const,
            reason: 'it has joined, and is connected in a moment',
          };
          if (row.host_id === null) await insertHost(trx, services, { ...fresh, id, name, cluster });
          else {
            await findHost(trx, id);
            await claimUrl(trx, url, id);
            await trx.updateTable('hosts').set(fresh).where('id', '=', id).execute();
          }
          await events.append(trx, 'host.joined', { kind: 'host', id }, `host ${name} joined from ${at}`);
        });
        fleet.forget(id);
        services.log.info({ hostId: id, address: at }, 'a host joined');
        return { hostId: id, certificate };
      },
      async renewCertificate({ body }, { caller }) {
        const host = await findHost(db.read, caller.name);
        if (host.generation === null)
          throw new CisternError('JOIN_REFUSED', `host ${host.name} did not join: it has no certificate to renew`);
        const name = hostName(host.id, host.generation);
        return { certificate: await authority.issue(body.csr, name, [addressOf(host.url)]) };
      },
    },
    { authenticate },
  );
}
