import { z } from 'zod';
import { ReplicaFault } from '../errors.ts';
import { Bytes, Capacity, Id, Name, Sha256, Time, VolumeKind } from '../model.ts';
import { command } from './command.ts';
import { ImageRef, PoolRef } from './refs.ts';

/** A volume as it lies in a pool; what its meta.json tells is null where that is missing or damaged. */
export const FoundVolume = z.object({
  id: Id,
  layerId: Id.nullable().default(null),
  name: Name.nullable().default(null).describe('that it was made with'),
  kind: VolumeKind.nullable().default(null),
  size: Bytes.nullable().describe('that a guest sees'),
  allocated: Bytes,
  imageId: Id.nullable().describe('it is a linked clone of'),
  createdAt: Time.nullable(),
  problem: z.string().nullable().default(null).describe('what is wrong with it: a base that is missing, a broken chain'),
});
export type FoundVolume = z.infer<typeof FoundVolume>;

export const poolCommands = [
  command({
    kind: 'pool.connect',
    reads: true, // nobody's files: at most an empty place becomes a pool
    summary: 'Mounts the pool where it must be mounted, checks its identity (pool.json) and tells its capacity',
    input: z.strictObject({ pool: PoolRef, initialize: z.boolean().describe('write pool.json where there is none yet') }),
    output: z.object({ capacity: Capacity, initialized: z.boolean() }),
  }),
  command({
    kind: 'pool.disconnect',
    summary: 'Unmounts the pool; its files stay',
    input: z.strictObject({
      pool: PoolRef,
      forget: z.boolean().describe('the pool leaves cistern: remove pool.json, which must be the only thing in use'),
    }),
    output: z.object({}),
  }),
  command({
    kind: 'pool.usage',
    reads: true,
    summary: 'Measures the pool: free space, cache, trash and what each volume takes',
    input: z.strictObject({ pool: PoolRef }),
    output: z.object({
      capacity: Capacity,
      cache: z.array(z.object({ imageId: Id, allocated: Bytes })),
      volumes: z.array(z.object({ id: Id, allocated: Bytes })),
      trash: z.array(z.object({ id: Id, allocated: Bytes, deletedAt: Time })),
    }),
  }),
  command({
    kind: 'pool.scan',
    reads: true,
    summary: 'Tells everything that lies in the pool, whatever the controller knows of it',
    input: z.strictObject({
      pool: PoolRef,
      check: z.boolean().default(false).describe('also has qemu-img check the tables of every volume that no program has open'),
    }),
    output: z.object({
      volumes: z.array(FoundVolume),
      trash: z.array(FoundVolume),
      cache: z.array(z.object({ imageId: Id, allocated: Bytes })),
    }),
  }),
  command({
    kind: 'pool.purge',
    summary:
      'Removes volumes from the trash, and with `before` whatever else went there before that time by the clock of the host',
    input: z.strictObject({ pool: PoolRef, volumeIds: z.array(Id).max(1000), before: Time.nullable() }),
    output: z.object({ removed: z.array(Id), freed: Bytes }),
  }),
  command({
    kind: 'cache.fill',
    summary: "Brings an image into the pool's image cache; does nothing where it is there already",
    input: z.strictObject({
      pool: PoolRef,
      image: ImageRef.extend({ digest: Sha256.describe('as it was published: a replica with another one is refused') }),
      stores: z
        .array(z.strictObject({ id: Id, type: z.string(), config: z.record(z.string(), z.unknown()) }))
        .min(1)
        .describe('replicas, tried in this order'),
    }),
    output: z.object({
      size: Bytes,
      allocated: Bytes,
      virtualSize: Bytes,
      alreadyThere: z.boolean(),
      transfer: z.unknown().optional(),
      storeId: Id.nullable().default(null).describe('the replica that it came from'),
      faults: z.array(ReplicaFault).default([]).describe('replicas that were tried in vain before one was good'),
    }),
  }),
  command({
    kind: 'cache.verify',
    summary: 'Reads a cached image and compares each part with what its manifest said; changes nothing',
    input: z.strictObject({
      pool: PoolRef,
      image: ImageRef,
      bytesPerSecond: z
        .int()
        .min(2 ** 20)
        .nullable()
        .describe('holds the reading down, to leave the pool to VMs; null: as fast as it goes'),
    }),
    output: z.object({ parts: z.int(), bytes: Bytes }),
  }),
  command({
    kind: 'cache.evict',
    summary: "Removes an image from the pool's image cache",
    input: z.strictObject({ pool: PoolRef, imageId: Id }),
    output: z.object({ freed: Bytes }),
  }),
] as const;
