/** The small JSON beside every object in backup storage. What it says is what a download is checked against. */
import { z } from 'zod';
import { CisternError } from '../../shared/errors.ts';
import { Bytes, Id, ImageFormat, Media, Name, Sha256, Time } from '../../shared/model.ts';
import { digestOfParts, LARGEST_PART, partCount, partRange, ZERO, type PartDigest } from '../transfer/parts.ts';

/** No manifest is larger: 64 MiB tell the parts of some 15 TiB. */
export const MANIFEST_LIMIT = 64 * 2 ** 20;

const isPart = (part: unknown): boolean => part === ZERO || Sha256.safeParse(part).success;

export const Manifest = z.strictObject({
  version: z.literal(1),
  id: Id,
  name: Name.optional().describe('that it had when it was published'),
  media: Media.optional(),
  format: ImageFormat,
  size: Bytes.describe('of the image; of the stored object too, unless it is packed'),
  virtualSize: Bytes.describe('of the disk that a guest sees'),
  partSize: z.int().min(4096).max(LARGEST_PART).describe('bytes of every part but the last, which may be shorter'),
  parts: z
    .custom<PartDigest[]>(parts => Array.isArray(parts) && parts.every(isPart), 'not all are a SHA-256 or "zero"') // one issue, however many are wrong
    .describe('SHA-256 of each part in order; "zero" for a part of zeros'),
  packed: z.literal(true).optional().describe('parts of zeros are left out of the object; the others lie one behind the other'),
  digest: Sha256.describe('see digestOfParts'),
  createdAt: Time,
});
export type Manifest = z.output<typeof Manifest>;

/** The manifest of an object that has been moved. */
export function makeManifest(
  image: Pick<Manifest, 'id' | 'name' | 'media' | 'format' | 'virtualSize'>,
  size: number,
  parts: readonly PartDigest[],
  partSize: number,
  packs: boolean,
): Manifest {
  const digest = digestOfParts(size, partSize, parts);
  const packed = packs && parts.includes(ZERO) ? { packed: true as const } : {};
  return { version: 1, ...image, size, partSize, parts: [...parts], ...packed, digest, createdAt: new Date().toISOString() };
}

export const writeManifest = (manifest: Manifest): Buffer => Buffer.from(`${JSON.stringify(manifest, null, 1)}\n`);

/** A manifest read from `where`. MANIFEST_INVALID where it is not one, is another image's, or does not agree with itself. */
export function parseManifest(body: Buffer, where: string, imageId: string): Manifest {
  const refuse = (why: string): never => {
    throw new CisternError('MANIFEST_INVALID', `reading ${where}: ${why}`);
  };
  let json: unknown;
  try {
    json = JSON.parse(body.toString('utf8'));
  } catch (error) {
    return refuse(`it is not JSON: ${(error as Error).message}`);
  }
  const parsed = Manifest.safeParse(json);
  if (!parsed.success) return refuse(z.prettifyError(parsed.error));
  const { id, size, partSize, parts, digest } = parsed.data;
  if (id !== imageId) refuse(`it is the manifest of image ${id}`);
  const count = partCount(size, partSize);
  if (parts.length !== count) refuse(`it tells ${parts.length} parts, but ${size} bytes make ${count}`);
  if (digestOfParts(size, partSize, parts) !== digest) refuse('its digest is not that of its parts');
  return parsed.data;
}

/** Bytes of the object that a manifest describes. */
export function storedSize({ size, partSize, parts, packed }: Manifest): number {
  if (!packed) return size;
  return parts.reduce((sum, part, i) => (part === ZERO ? sum : sum + partRange(i, size, partSize).length), 0);
}

/** Where each part begins in a packed object; undefined for one that is not. */
export function offsetsOf({ size, partSize, parts, packed }: Manifest): number[] | undefined {
  if (!packed) return undefined;
  let at = 0;
  return parts.map((part, i) => {
    const begins = at;
    if (part !== ZERO) at += partRange(i, size, partSize).length;
    return begins;
  });
}
