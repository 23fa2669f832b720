import { z } from 'zod';
import { Capacity, Id } from '../model.ts';
import { command } from './command.ts';
import { StoreRef } from './refs.ts';

export const storeCommands = [
  command({
    kind: 'store.connect',
    summary: 'Checks that the backup storage can be reached, read and written, and tells its capacity',
    input: z.strictObject({ store: StoreRef }),
    output: z.object({ capacity: Capacity.nullable() }),
  }),
] as const;

export const replicaCommands = [
  command({
    kind: 'image.remove',
    summary: 'Removes an image from a backup storage; does nothing where it is gone already',
    input: z.strictObject({ store: StoreRef, imageId: Id }),
    output: z.object({}),
  }),
] as const;
