import { z } from 'zod';
import { DriverConfig, Id, ImageFormat, Media, Name } from '../model.ts';

/** A primary storage as an agent needs it: every command carries it whole, so an agent keeps no copy of the configuration. */
export const PoolRef = z.strictObject({ id: Id, type: z.string(), config: DriverConfig });
export type PoolRef = z.infer<typeof PoolRef>;

/** A backup storage as an agent needs it, secrets included. */
export const StoreRef = z.strictObject({ id: Id, type: z.string(), config: DriverConfig });
export type StoreRef = z.infer<typeof StoreRef>;

export const ImageRef = z.strictObject({ id: Id, format: ImageFormat });
export type ImageRef = z.infer<typeof ImageRef>;

/** An image to publish: its manifest tells name and media, for the day on which nothing else knows them. */
export const NewImageRef = ImageRef.extend({ name: Name.optional(), media: Media.optional() });
export type NewImageRef = z.infer<typeof NewImageRef>;

/** How bytes went: what `cistern operation show` prints of a transfer. */
export const TransferSummary = z.object({
  lane: z.string().describe('the way that was chosen: copy (inside one site), the name of a tool, ranges or stream'),
  streams: z.int(),
  parts: z.int(),
  zeroParts: z.int().describe('parts of zeros, which ranges do not move'),
  bytes: z.int().describe('size of the object'),
  zeroBytes: z.int().default(0).describe('bytes of these'),
  resumed: z.int().default(0).describe('bytes that an earlier attempt had brought, verified again'),
  moved: z.int().describe('bytes that crossed; those that are only read back to verify a copy do not count'),
  retries: z.int().default(0).describe('times that a stream was begun anew after a failure'),
  seconds: z.number(),
});
export type TransferSummary = z.infer<typeof TransferSummary>;
