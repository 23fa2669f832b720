import { z } from 'zod';
import { Bytes, Image, ImageFormat, LifeStatus, Media, Name, Operation, Sha256, SourceFormat } from '../model.ts';
import { secretUrl } from '../secret.ts';
import { listOf, page, ref } from './lists.ts';
import { routes } from './route.ts';

/** Where an image comes from, as the API takes it. */
export const ImageSource = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('url'), url: secretUrl(z.url({ protocol: /^https?$/ }).describe('fetched by a host')) }),
  z.strictObject({
    type: z.literal('upload'),
    size: Bytes.optional().describe('of the file that will be sent to /images/:ref/upload'),
  }),
  z.strictObject({
    type: z.literal('object'),
    backupStorage: z.string(),
    path: z.string().min(1).max(1024).describe('of the object, relative to the root of the backup storage'),
  }),
]);

export const imageRoutes = routes({
  listImages: {
    method: 'get',
    path: '/api/v1/images',
    role: 'reader',
    tag: 'images',
    summary: 'List images',
    query: page.extend({ media: Media.optional(), status: LifeStatus.optional(), backupStorage: z.string().optional() }),
    status: 200,
    output: listOf(Image),
  },
  getImage: {
    method: 'get',
    path: '/api/v1/images/:ref',
    role: 'reader',
    tag: 'images',
    summary: 'Show an image',
    params: ref,
    status: 200,
    output: Image,
  },
  importImage: {
    method: 'post',
    path: '/api/v1/images',
    role: 'operator',
    tag: 'images',
    summary: 'Import an image from a URL, an upload or an object on a backup storage',
    body: z.strictObject({
      name: Name,
      media: Media.default('root'),
      format: ImageFormat.default('qcow2').describe('of the stored image'),
      source: ImageSource,
      sourceFormat: SourceFormat.optional().describe('what the source must be; else what its header says'),
      sha256: Sha256.optional().describe('expected, of the bytes as they come in'),
      backupStorages: z
        .array(z.string())
        .max(16)
        .default([])
        .describe('where replicas go; empty: the enabled one with most room'),
      host: z.string().optional().describe('the host that does the work; else the least busy one'),
    }),
    starts: true,
    status: 202,
    output: Operation,
  },
  uploadImage: {
    method: 'put',
    path: '/api/v1/images/:ref/upload',
    role: 'operator',
    tag: 'images',
    summary: 'Send the bytes of an image whose source is an upload',
    description: 'The controller passes the stream on to the agent as it comes and keeps nothing of it.',
    params: ref,
    bodyStream: true,
    status: 200,
    output: z.object({ received: z.int() }),
  },
  renameImage: {
    method: 'patch',
    path: '/api/v1/images/:ref',
    role: 'operator',
    tag: 'images',
    summary: 'Rename an image',
    params: ref,
    body: z.strictObject({ name: Name }),
    status: 200,
    output: Image,
  },
  verifyImage: {
    method: 'post',
    path: '/api/v1/images/:ref/verify',
    role: 'operator',
    tag: 'images',
    summary: 'Read an image on all of its backup storages, and compare each part with its manifest',
    params: ref,
    starts: true,
    status: 202,
    output: Operation,
  },
  replicateImage: {
    method: 'post',
    path: '/api/v1/images/:ref/replicas',
    role: 'operator',
    tag: 'images',
    summary: 'Copy an image to more backup storages, or over a damaged replica',
    params: ref,
    body: z.strictObject({
      backupStorages: z.array(z.string()).min(1).max(16).describe('where replicas go'),
      host: z.string().optional().describe('the host that does the work; else the least busy one'),
    }),
    starts: true,
    status: 202,
    output: Operation,
  },
  deleteReplica: {
    method: 'delete',
    path: '/api/v1/images/:ref/replicas/:store',
    role: 'operator',
    tag: 'images',
    summary: 'Delete the replica of an image on one backup storage; refused where no other one is good',
    params: ref.extend({ store: z.string().min(1).max(128).describe('id or name of the backup storage') }),
    starts: true,
    status: 202,
    output: Operation,
  },
  deleteImage: {
    method: 'delete',
    path: '/api/v1/images/:ref',
    role: 'operator',
    tag: 'images',
    summary: 'Delete an image from all backup storages; volumes made from it live on',
    params: ref,
    starts: true,
    status: 202,
    output: Operation,
  },
});
