import { z } from 'zod';
import { Bytes, Id, ImageFormat, Name, Sha256, VolumeKind } from '../model.ts';
import { command } from './command.ts';
import { Published } from './image.ts';
import { NewImageRef, PoolRef, StoreRef, TransferSummary } from './refs.ts';

export const volumeCommands = [
  command({
    kind: 'volume.create',
    summary: 'Makes volumes: empty, or linked clones of a cached image; all of them or none',
    input: z.strictObject({
      pool: PoolRef,
      volumes: z
        .array(
          z.strictObject({
            id: Id,
            layerId: Id,
            name: Name.optional().describe('noted in the pool with the kind, for a controller that lost its database'),
            kind: VolumeKind.optional(),
          }),
        )
        .min(1)
        .max(1000),
      size: Bytes.nullable().describe("null: the image's virtual size"),
      backing: z
        .strictObject({
          imageId: Id,
          format: ImageFormat,
          virtualSize: Bytes,
          digest: Sha256.describe('as it was published: a cached image with another one is not cloned'),
        })
        .nullable(),
    }),
    output: z.object({ size: Bytes, allocated: Bytes.describe('of each volume') }),
  }),
  command({
    kind: 'volume.resize',
    summary: 'Grows a volume; refused while a program has it open',
    input: z.strictObject({ pool: PoolRef, volumeId: Id, layerId: Id, size: Bytes }),
    output: z.object({ size: Bytes, allocated: Bytes }),
  }),
  command({
    kind: 'volume.delete',
    summary: 'Moves volumes to the trash; what is gone already is no error',
    input: z.strictObject({
      pool: PoolRef,
      volumeIds: z.array(Id).min(1).max(1000),
      unchanged: z
        .strictObject({ layerId: Id, version: z.string() })
        .optional()
        .describe('of one volume: refuses where it was written to since it had this version'),
      forGood: z.boolean().optional().describe('they were never in use: they leave the trash at once'),
    }),
    output: z.object({ trashed: z.array(Id) }),
  }),
  command({
    kind: 'volume.restore',
    summary: 'Brings volumes back from the trash; what stands in its place already, or is in neither, is no error',
    input: z.strictObject({ pool: PoolRef, volumeIds: z.array(Id).min(1).max(1000) }),
    output: z.object({ restored: z.array(Id) }),
  }),
  command({
    kind: 'volume.inspect',
    reads: true,
    summary: 'Tells what size a volume has, whatever its rows and notes say',
    input: z.strictObject({ pool: PoolRef, volumeId: Id, layerId: Id }),
    output: z.object({ size: Bytes }),
  }),
  command({
    kind: 'volume.copy',
    summary: 'Copies a volume into another pool of this host, and reads the copy back; the volume itself stays as it is',
    input: z.strictObject({
      from: PoolRef,
      to: PoolRef,
      volume: z.strictObject({ id: Id, layerId: Id, name: Name.optional(), kind: VolumeKind.optional() }),
      backing: z
        .strictObject({ imageId: Id, format: ImageFormat, digest: Sha256 })
        .nullable()
        .describe('the cached image that the copy is to stand on, as the volume does; null: it is to stand alone'),
    }),
    output: z.object({
      size: Bytes,
      allocated: Bytes,
      version: z.string().describe('of what was copied: for `unchanged` of volume.delete'),
      transfer: TransferSummary.nullable().describe('null where qemu-img made the copy'),
    }),
  }),
  command({
    kind: 'volume.upload',
    summary: 'Flattens a volume and publishes it as an image on backup storages',
    input: z.strictObject({
      pool: PoolRef,
      volumeId: Id,
      layerId: Id,
      image: NewImageRef,
      compress: z.boolean(),
      stores: z.array(StoreRef).min(1),
    }),
    output: Published,
  }),
] as const;
