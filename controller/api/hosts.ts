import { CisternError } from '../../shared/errors.ts';
import { newId } from '../../shared/id.ts';
import { claimName, findCluster, findHost } from '../db/find.ts';
import { addHost, reconnectHost, removeHost } from '../workflows/host.ts';
import { type Api, type Handlers, startOperation } from './api.ts';
import { pageOf } from './paging.ts';
import { toCluster, toHost } from './views.ts';

type Keys =
  | 'listHosts'
  | 'getHost'
  | 'addHost'
  | 'updateHost'
  | 'reconnectHost'
  | 'removeHost'
  | 'listClusters'
  | 'getCluster'
  | 'createCluster'
  | 'deleteCluster';

export function hostHandlers(api: Api): Handlers<Keys> {
  const { db, events } = api.services;
  return {
    async listHosts({ query }) {
      let rows = db.read.selectFrom('hosts').selectAll();
      if (query.cluster !== undefined) rows = rows.where('cluster_id', '=', (await findCluster(db.read, query.cluster)).id);
      if (query.status) rows = rows.where('status', '=', query.status);
      if (query.state) rows = rows.where('state', '=', query.state);
      const page = await pageOf(rows, query);
      return { items: page.rows.map(toHost), next: page.next };
    },
    getHost: async ({ params }) => toHost(await findHost(db.read, params.ref)),
    addHost: ({ body }, context) => startOperation(api, addHost, body, context),
    updateHost: async ({ params, body }, { caller }) =>
      db.write(async trx => {
        const host = await findHost(trx, params.ref);
        if (body.name !== undefined && body.name !== host.name) await claimName(trx, 'hosts', 'host', body.name);
        const set = { name: body.name ?? host.name, state: body.state ?? host.state };
        await trx.updateTable('hosts').set(set).where('id', '=', host.id).execute();
        if (set.state !== host.state)
          await events.append(
            trx,
            `host.${set.state}`,
            { kind: 'host', id: host.id },
            `host ${set.name} is now ${set.state}`,
            caller.name,
          );
        return toHost({ ...host, ...set });
      }),
    reconnectHost: ({ params }, context) => startOperation(api, reconnectHost, params, context),
    removeHost: ({ params }, context) => startOperation(api, removeHost, params, context),
    async listClusters({ query }) {
      const page = await pageOf(db.read.selectFrom('clusters').selectAll(), query);
      return { items: page.rows.map(toCluster), next: page.next };
    },
    getCluster: async ({ params }) => toCluster(await findCluster(db.read, params.ref)),
    createCluster: ({ body }) =>
      db.write(async trx => {
        await claimName(trx, 'clusters', 'cluster', body.name);
        const row = { id: newId(), name: body.name, created_at: new Date().toISOString() };
        await trx.insertInto('clusters').values(row).execute();
        return toCluster(row);
      }),
    deleteCluster: ({ params }) =>
      db.write(async trx => {
        const cluster = await findCluster(trx, params.ref);
        const host = await trx.selectFrom('hosts').select('name').where('cluster_id', '=', cluster.id).executeTakeFirst();
        if (host) throw new CisternError('IN_USE', `host ${host.name} is in cluster ${cluster.name}`);
        const storage = await trx
          .selectFrom('primary_storage_clusters')
          .innerJoin('primary_storages', 'primary_storages.id', 'primary_storage_id')
          .select('name')
          .where('cluster_id', '=', cluster.id)
          .executeTakeFirst();
        if (storage) throw new CisternError('IN_USE', `primary storage ${storage.name} is attached to cluster ${cluster.name}`);
        await trx.deleteFrom('clusters').where('id', '=', cluster.id).execute();
      }),
  };
}
