import { z } from 'zod';
import { Bytes, ImageFormat, LifeStatus, Name, Operation, Volume, VolumeKind } from '../model.ts';
import { listOf, page, ref } from './lists.ts';
import { routes } from './route.ts';

export const volumeRoutes = routes({
  listVolumes: {
    method: 'get',
    path: '/api/v1/volumes',
    role: 'reader',
    tag: 'volumes',
    summary: 'List volumes',
    query: page.extend({
      primaryStorage: z.string().optional(),
      image: z.string().optional(),
      host: z.string().optional(),
      status: LifeStatus.optional(),
      kind: VolumeKind.optional(),
    }),
    status: 200,
    output: listOf(Volume),
  },
  getVolume: {
    method: 'get',
    path: '/api/v1/volumes/:ref',
    role: 'reader',
    tag: 'volumes',
    summary: 'Show a volume',
    params: ref,
    status: 200,
    output: Volume,
  },
  createVolumes: {
    method: 'post',
    path: '/api/v1/volumes',
    role: 'operator',
    tag: 'volumes',
    summary: 'Create volumes: empty, or linked clones of an image',
    body: z
      .strictObject({
        name: Name.describe('with count above 1: NAME-1, NAME-2, ...'),
        kind: VolumeKind.optional().describe('root for clones of root images, else data'),
        image: z.string().optional().describe('image to clone'),
        size: Bytes.min(512)
          .max(64 * 2 ** 40)
          .optional()
          .describe("at least the image's; needed without an image"),
        count: z.int().min(1).max(1000).default(1),
        primaryStorage: z.string().optional().describe('else placement chooses'),
        host: z.string().optional().describe('the host that will use it; decides where on local pools'),
      })
      .refine(b => b.image !== undefined || b.size !== undefined, { message: 'an empty volume needs a size', path: ['size'] }),
    starts: true,
    status: 202,
    output: Operation,
  },
  updateVolume: {
    method: 'patch',
    path: '/api/v1/volumes/:ref',
    role: 'operator',
    tag: 'volumes',
    summary: 'Rename a volume',
    params: ref,
    body: z.strictObject({ name: Name }),
    status: 200,
    output: Volume,
  },
  resizeVolume: {
    method: 'post',
    path: '/api/v1/volumes/:ref/resize',
    role: 'operator',
    tag: 'volumes',
    summary: 'Grow a volume',
    params: ref,
    body: z.strictObject({ size: Bytes.min(512).max(64 * 2 ** 40) }),
    starts: true,
    status: 202,
    output: Operation,
  },
  uploadVolume: {
    method: 'post',
    path: '/api/v1/volumes/:ref/upload',
    role: 'operator',
    tag: 'volumes',
    summary: 'Upload a volume, flattened, as a root or data template',
    params: ref,
    body: z.strictObject({
      name: Name.describe('of the new image'),
      media: z.enum(['root', 'data']).optional().describe("else as the volume's kind"),
      format: ImageFormat.default('qcow2'),
      compress: z.boolean().default(false),
      backupStorages: z.array(z.string()).max(16).default([]),
    }),
    starts: true,
    status: 202,
    output: Operation,
  },
  migrateVolume: {
    method: 'post',
    path: '/api/v1/volumes/:ref/migrate',
    role: 'operator',
    tag: 'volumes',
    summary: 'Move a volume that no program has open to another primary storage, through a host that sees both',
    params: ref,
    body: z.strictObject({
      primaryStorage: z.string().describe('where it goes'),
      host: z.string().optional().describe('that moves it; on a local storage it lies there afterwards'),
      flatten: z
        .boolean()
        .default(false)
        .describe('it stands alone afterwards; else on its image, where both storages keep files'),
    }),
    starts: true,
    status: 202,
    output: Operation,
  },
  deleteVolume: {
    method: 'delete',
    path: '/api/v1/volumes/:ref',
    role: 'operator',
    tag: 'volumes',
    summary: 'Delete a volume; it stays in the trash for a while',
    params: ref,
    starts: true,
    status: 202,
    output: Operation,
  },
  deleteVolumes: {
    method: 'post',
    path: '/api/v1/volumes/delete',
    role: 'operator',
    tag: 'volumes',
    summary: 'Delete several volumes in one operation',
    body: z.strictObject({ volumes: z.array(z.string()).min(1).max(1000) }),
    starts: true,
    status: 202,
    output: Operation,
  },
});
