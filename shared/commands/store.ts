import { z } from 'zod';
import { ReplicaFault } from '../errors.ts';
import { Bytes, Capacity, Id, ImageFormat, Media, Name, Sha256, Time } from '../model.ts';
import { command } from './command.ts';
import { ImageRef, NewImageRef, StoreRef, TransferSummary } from './refs.ts';

/** An image as it lies on a backup storage. */
export const FoundImage = z.object({
  id: Id,
  /** What its manifest tells; null where that is missing or damaged: its upload never ended, or it is no use any more. */
  manifest: z
    .object({
      name: Name.optional(),
      media: Media.optional(),
      format: ImageFormat,
      size: Bytes,
      virtualSize: Bytes,
      digest: Sha256,
      createdAt: Time,
    })
    .nullable(),
  unfinished: z.boolean().default(false).describe('there is no manifest at all: its upload goes on, or was cut short'),
  problem: z.string().nullable().default(null).describe('why there is no manifest'),
});
export type FoundImage = z.infer<typeof FoundImage>;

export const storeCommands = [
  command({
    kind: 'store.connect',
    reads: true,
    summary: 'Checks that the backup storage can be reached, read and written, and tells its capacity',
    input: z.strictObject({
      store: StoreRef,
      others: z.array(StoreRef).optional().describe('which may turn out to be the same place'),
    }),
    output: z.object({
      capacity: Capacity.nullable(),
      sameAs: Id.nullable().default(null).describe('one of the others that is the same place'),
    }),
  }),
  command({
    kind: 'store.scan',
    reads: true,
    summary: 'Tells every image that lies on the backup storage, whatever the controller knows of it',
    input: z.strictObject({ store: StoreRef }),
    output: z.object({ images: z.array(FoundImage) }),
  }),
  command({
    kind: 'store.validate',
    summary: 'Runs the conformance suite against the backup storage, in folders of its own that are removed again',
    input: z.strictObject({ store: StoreRef }),
    output: z.object({
      cases: z.array(
        z.object({
          name: z.string().describe('what the storage has to do'),
          ok: z.boolean(),
          detail: z.string().describe('why not; empty where it does'),
          seconds: z.number(),
        }),
      ),
    }),
  }),
] as const;

export const replicaCommands = [
  command({
    kind: 'image.verify',
    summary: 'Reads an image on a backup storage and compares each part with its manifest; changes nothing',
    input: z.strictObject({ store: StoreRef, image: ImageRef, digest: Sha256 }),
    output: z.object({ parts: z.int(), bytes: Bytes }),
  }),
  command({
    kind: 'image.copy',
    summary: 'Copies an image to another backup storage, each part verified on the way; what lies there is replaced',
    input: z.strictObject({
      image: NewImageRef.extend({ digest: Sha256.describe('as it was published: a replica with another one is refused') }),
      from: z.array(StoreRef).min(1).describe('replicas, tried in this order'),
      to: StoreRef,
    }),
    output: z.object({
      storeId: Id.describe('the replica that it came from'),
      faults: z.array(ReplicaFault).describe('replicas that were tried in vain before one was good'),
      transfer: TransferSummary,
    }),
  }),
  command({
    kind: 'image.remove',
    summary: 'Removes an image from a backup storage; does nothing where it is gone already',
    input: z.strictObject({ store: StoreRef, imageId: Id }),
    output: z.object({}),
  }),
] as const;
