import { CisternError } from '../../shared/errors.ts';
import { newToken, tokenHash } from '../../shared/http/auth.ts';
import { newId } from '../../shared/id.ts';
import { claimName } from '../db/find.ts';
import type { Trx } from '../db/database.ts';
import { NEW_POOL } from './primary-storage-hosts.ts';
import type { Services } from '../services.ts';

export interface NewHost {
  id: string;
  name: string;
  url: string;
  cluster: string;
  /** The agent's bearer token; undefined for a host that joined. */
  token?: string;
  generation?: string;
  status: 'connecting' | 'disconnected';
  reason: string | null;
}

/** NAME_TAKEN where another host than `id` has this address. */
export async function claimUrl(trx: Trx, url: string, id: string): Promise<void> {
  const same = await trx.selectFrom('hosts').select('name').where('url', '=', url).where('id', '<>', id).executeTakeFirst();
  if (same) throw new CisternError('NAME_TAKEN', `host ${same.name} has the address ${url} already`);
}

/** Writes a new host, its pools, and its cluster where that is new, too; returns the id of the cluster then. */
export async function insertHost(trx: Trx, services: Services, host: NewHost): Promise<string | null> {
  await claimName(trx, 'hosts', 'host', host.name);
  await claimUrl(trx, host.url, host.id);
  const cluster = await trx.selectFrom('clusters').select('id').where('name', '=', host.cluster).executeTakeFirst();
  const clusterId = cluster?.id ?? newId();
  const created_at = new Date().toISOString();
  if (!cluster) await trx.insertInto('clusters').values({ id: clusterId, name: host.cluster, created_at }).execute();
  const reportToken = newToken();
  await trx
    .insertInto('hosts')
    .values({
      id: host.id,
      name: host.name,
      cluster_id: clusterId,
      url: host.url,
      token_sealed: services.secrets.seal(host.token ?? null, `hosts.token_sealed/${host.id}`),
      report_hash: tokenHash(reportToken).toString('hex'),
      report_sealed: services.secrets.seal(reportToken, `hosts.report_sealed/${host.id}`),
      status: host.status,
      state: 'enabled',
      reason: host.reason,
      facts_json: null,
      last_seen_at: null,
      generation: host.generation ?? null,
      created_at,
    })
    .execute();
  // every primary storage of the cluster is to be seen by the new host
  const storages = await trx
    .selectFrom('primary_storage_clusters')
    .select('primary_storage_id')
    .where('cluster_id', '=', clusterId)
    .execute();
  for (const { primary_storage_id } of storages) {
    await trx
      .insertInto('pools')
      .values({
        primary_storage_id,
        host_id: host.id,
        ...NEW_POOL,
      })
      .execute();
  }
  return cluster ? null : clusterId;
}
