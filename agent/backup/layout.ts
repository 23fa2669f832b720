/** Where images lie in a backup storage: `images/<id>/image.<format>`, and `manifest.json` beside it, written last. */
import type { z } from 'zod';
import type { TransferSummary } from '../../shared/commands/refs.ts';
import { CisternError } from '../../shared/errors.ts';
import { Id, type ImageFormat } from '../../shared/model.ts';
import type { Sink, Source } from '../transfer/ends.ts';
import { LARGEST_PART, partCount, partSizeFor } from '../transfer/parts.ts';
import { isPassing } from '../transfer/retry.ts';
import { transfer, type TransferOptions } from '../transfer/transfer.ts';
import type { BackupStore } from './driver.ts';
import { makeManifest, MANIFEST_LIMIT, offsetsOf, parseManifest, storedSize, writeManifest, type Manifest } from './manifest.ts';

export type MoveOptions = Pick<TransferOptions, 'streams' | 'stallSeconds' | 'signal' | 'progress' | 'partSize'>;
/** What is published: also the name and media that the manifest is to tell. */
export type NewImage = Pick<Manifest, 'id' | 'name' | 'media' | 'format' | 'virtualSize'>;
/** `parts`: what they are known to be; others are refused, and zeros not even read. */
type Publishing = MoveOptions & Pick<TransferOptions, 'parts'>;
export interface Moved {
  manifest: Manifest;
  summary: z.output<typeof TransferSummary>;
}

const folderOf = (imageId: string): string => `images/${imageId}`;
const manifestOf = (imageId: string): string => `${folderOf(imageId)}/manifest.json`;
const objectOf = (image: { id: string; format: ImageFormat }): string => `${folderOf(image.id)}/image.${image.format}`;

/**
 * Uploads an image with its manifest: all of it, or nothing that shows. An earlier attempt under this id that was cut short is taken up,
 * so an id belongs to one upload at a time (the controller's locks see to that).
 */
export async function publishImage(store: BackupStore, image: NewImage, source: Source, options: Publishing): Promise<Moved> {
  try {
    return await publishOnce(store, image, source, options);
  } catch (error) {
    if (!(error instanceof CisternError && error.code === 'TRANSFER_CHANGED')) throw error;
    return await publishOnce(store, image, source, options); // what the earlier attempt had brought is gone now
  }
}

async function publishOnce(store: BackupStore, image: NewImage, source: Source, options: Publishing): Promise<Moved> {
  const partSize = options.partSize ?? partSizeFor(source.size, store.limits?.parts);
  refuseLarger(store, source, partSize);
  const { id } = image;
  // published whole, but its task was not heard any more: what is to be published now may be another conversion of it
  if ((await store.list(folderOf(id))).includes('manifest.json')) await store.remove(folderOf(id));
  try {
    const sink = await store.sink(objectOf(image), source.size, partSize);
    const { parts, summary } = await transfer({ ...options, ...fewer(options.streams, partSize), partSize, source, sink });
    const manifest = makeManifest(image, source.size, parts, partSize, isPacked(source, sink, summary.lane));
    await store.write(manifestOf(id), writeManifest(manifest));
    options.signal.throwIfAborted();
    return { manifest, summary };
  } catch (error) {
    if (!isPassing(error)) await removeAfter(store, id, error);
    throw error;
  }
}

/** Whether parts of zeros were left out: by a sink that packs what comes part by part, or in the object that was copied. */
const isPacked = ({ offsets }: Source, { packs }: Sink, lane: string): boolean =>
  lane === 'copy' ? offsets !== undefined : packs === true && lane === 'ranges';

function refuseLarger({ limits }: BackupStore, { name, size }: Source, partSize: number): void {
  if (limits === undefined || (size <= limits.size && partCount(size, partSize) <= limits.parts)) return;
  const most = Math.min(limits.size, limits.parts * LARGEST_PART);
  throw new CisternError('STORE_LIMIT', `storing ${name}: it has ${size} bytes, and an object here at most ${most}`);
}

/** Fewer streams where parts are large: each holds one in memory. */
const fewer = (streams: number, partSize: number): { streams: number } => ({
  streams: Math.max(1, Math.min(streams, Math.floor(LARGEST_PART / partSize))),
});

/** The manifest of an image. OBJECT_MISSING where there is none: the image is not there, or its upload never ended. */
export async function readManifest(store: BackupStore, imageId: string): Promise<Manifest> {
  const path = manifestOf(imageId);
  return parseManifest(await store.read(path, MANIFEST_LIMIT), path, imageId);
}

/**
 * Downloads an image into a sink, or into one made once the manifest is known. Every part is verified before the sink publishes:
 * DIGEST_MISMATCH or MANIFEST_INVALID and nothing shows. Owns the sink from the call on.
 */
export async function fetchImage(
  store: BackupStore,
  imageId: string,
  sink: Sink | ((manifest: Manifest) => Promise<Sink>),
  options: Omit<MoveOptions, 'partSize'>,
): Promise<Moved> {
  const made = typeof sink === 'function' ? undefined : sink;
  let manifest: Manifest;
  let source: Source;
  try {
    manifest = await readManifest(store, imageId);
    source = asImage(await store.source(objectOf(manifest)), manifest);
  } catch (error) {
    await made?.abort();
    throw error;
  }
  const into = typeof sink === 'function' ? await sink(manifest) : sink;
  const { parts, partSize } = manifest;
  const { summary } = await transfer({ ...options, ...fewer(options.streams, partSize), source, sink: into, parts, partSize });
  return { manifest, summary };
}

/**
 * Copies an image from one backup storage to another, part by part as its manifest tells them, once `check` has taken that manifest.
 * What lies at the destination is replaced. DIGEST_MISMATCH, MANIFEST_INVALID or OBJECT_MISSING where the source is not sound.
 */
export async function copyImage(
  from: BackupStore,
  to: BackupStore,
  image: Pick<NewImage, 'id' | 'name' | 'media'>,
  check: (manifest: Manifest) => void,
  options: Omit<MoveOptions, 'partSize'>,
): Promise<Moved> {
  const manifest = await readManifest(from, image.id);
  check(manifest);
  const source = asImage(await from.source(objectOf(manifest)), manifest);
  const { format, virtualSize, partSize, parts } = manifest;
  const named = { name: image.name ?? manifest.name, media: image.media ?? manifest.media };
  return publishImage(to, { id: image.id, ...named, format, virtualSize }, source, { ...options, partSize, parts });
}

/** An object as the image that its manifest describes. DIGEST_MISMATCH where it has another size. */
function asImage(object: Source, manifest: Manifest): Source {
  const stored = storedSize(manifest);
  if (object.size !== stored)
    throw new CisternError('DIGEST_MISMATCH', `reading ${object.name}: it has ${object.size} bytes, its manifest says ${stored}`);
  const offsets = offsetsOf(manifest);
  if (offsets === undefined) return object;
  const { name, ranges, place } = object;
  return { name, size: manifest.size, stored, offsets, ...(place && { place }), ...(ranges && { ranges }) };
}

/** Ids of the images that lie in a backup storage, those without a manifest included. */
export const listImages = async (store: BackupStore): Promise<string[]> =>
  (await store.list('images')).filter(name => Id.safeParse(name).success).sort();

/** Removes an image, its manifest and what unfinished uploads left of it. Succeeds where there is nothing. */
export const removeImage = (store: BackupStore, imageId: string): Promise<void> => store.remove(folderOf(imageId));

async function removeAfter(store: BackupStore, imageId: string, error: unknown): Promise<void> {
  try {
    await removeImage(store, imageId);
  } catch (second) {
    const [first, then] = [error, second].map(e => (e instanceof Error ? e.message : String(e)));
    const code = error instanceof CisternError ? error.code : 'INTERNAL';
    throw new CisternError(code, `${first}; removing what had been uploaded of image ${imageId} failed too: ${then}`, {
      cause: error,
    });
  }
}
