import { CisternError } from '../../shared/errors.ts';
import { claimName, findHost, findImage, findPrimaryStorage, findVolume } from '../db/find.ts';
import { migrateVolume } from '../workflows/volume-migrate.ts';
import { uploadVolume } from '../workflows/volume-upload.ts';
import { createVolumes } from '../workflows/volume-create.ts';
import { deleteVolumes, resizeVolume } from '../workflows/volume.ts';
import { type Api, type Handlers, startOperation } from './api.ts';
import { pageOf } from './paging.ts';
import { toVolume } from './views.ts';

type Keys =
  | 'listVolumes'
  | 'getVolume'
  | 'createVolumes'
  | 'updateVolume'
  | 'resizeVolume'
  | 'migrateVolume'
  | 'uploadVolume'
  | 'deleteVolume'
  | 'deleteVolumes';

export function volumeHandlers(api: Api): Handlers<Keys> {
  const { db } = api.services;
  return {
    async listVolumes({ query }) {
      let rows = db.read.selectFrom('volumes').selectAll();
      rows = query.status === undefined ? rows.where('status', '<>', 'deleted') : rows.where('status', '=', query.status);
      if (query.kind) rows = rows.where('kind', '=', query.kind);
      if (query.primaryStorage !== undefined)
        rows = rows.where('primary_storage_id', '=', (await findPrimaryStorage(db.read, query.primaryStorage)).id);
      if (query.image !== undefined) rows = rows.where('image_id', '=', (await findImage(db.read, query.image)).id);
      if (query.host !== undefined) rows = rows.where('host_id', '=', (await findHost(db.read, query.host)).id);
      const page = await pageOf(rows, query);
      return { items: page.rows.map(toVolume), next: page.next };
    },
    getVolume: async ({ params }) => toVolume(await findVolume(db.read, params.ref)),
    createVolumes: ({ body }, context) => startOperation(api, createVolumes, body, context),
    updateVolume: ({ params, body }) =>
      db.write(async trx => {
        const volume = await findVolume(trx, params.ref);
        if (volume.status === 'deleted') throw new CisternError('NOT_FOUND', `volume ${volume.name} is deleted`);
        if (body.name !== volume.name) await claimName(trx, 'volumes', 'volume', body.name);
        await trx.updateTable('volumes').set({ name: body.name }).where('id', '=', volume.id).execute();
        return toVolume({ ...volume, name: body.name });
      }),
    resizeVolume: ({ params, body }, context) => startOperation(api, resizeVolume, { ...params, ...body }, context),
    migrateVolume: ({ params, body }, context) => startOperation(api, migrateVolume, { ...params, ...body }, context),
    uploadVolume: ({ params, body }, context) => startOperation(api, uploadVolume, { ...params, ...body }, context),
    deleteVolume: ({ params }, context) => startOperation(api, deleteVolumes, { volumes: [params.ref] }, context),
    deleteVolumes: ({ body }, context) => startOperation(api, deleteVolumes, body, context),
  };
}
