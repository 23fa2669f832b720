import { z } from 'zod';
import { Bytes, Id, Sha256, SourceFormat } from '../model.ts';
import { command } from './command.ts';
import { NewImageRef, StoreRef, TransferSummary } from './refs.ts';

/** Where an image comes from. An `upload` arrives as the body of `PUT /v1/tasks/:id/input`. */
export const ImportSource = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('url'), url: z.url({ protocol: /^https?$/ }) }),
  z.strictObject({ type: z.literal('upload'), size: Bytes.nullable() }),
  z.strictObject({
    type: z.literal('object'),
    store: StoreRef,
    path: z.string().min(1).max(1024).describe('relative to the root of the backup storage'),
  }),
]);
export type ImportSource = z.infer<typeof ImportSource>;

/** What a finished object is, as its manifest says. */
export const Published = z.object({
  size: Bytes,
  virtualSize: Bytes,
  digest: Sha256,
  transfers: z.array(z.object({ storeId: Id, summary: TransferSummary })),
});
export type Published = z.infer<typeof Published>;

export const imageCommands = [
  command({
    kind: 'image.import',
    summary: 'Takes an image in, judges its header, converts it to a fresh file and publishes it on backup storages',
    input: z.strictObject({
      image: NewImageRef,
      source: ImportSource,
      sourceFormat: SourceFormat.nullable().describe(
        'null: whatever the header says; raw without a partition table must be declared',
      ),
      expectedSha256: Sha256.nullable().describe('of the bytes as they come in, before decompression'),
      stores: z.array(StoreRef).min(1),
    }),
    output: Published.extend({ sourceFormat: SourceFormat, sourceSha256: Sha256 }),
  }),
] as const;
