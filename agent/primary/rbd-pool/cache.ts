import { CisternError } from '../../../shared/errors.ts';
import type { ImageFormat } from '../../../shared/model.ts';
import { children, infoOf, unprotect } from '../../ceph/clones.ts';
import type { Cluster } from '../../ceph/cluster.ts';
import { poolOf } from '../../ceph/config.ts';
import { isCode } from '../../ceph/errors.ts';
import { removeImage } from '../../ceph/images.ts';
import { removeObjects } from '../../ceph/objects.ts';
import { imageServer } from '../../ceph/server.ts';
import type { Source } from '../../transfer/ends.ts';
import { nowhere } from '../../transfer/nowhere.ts';
import { partRange } from '../../transfer/parts.ts';
import { transfer } from '../../transfer/transfer.ts';
import type { Verification } from '../driver.ts';
import { inTurn } from '../in-turn.ts';
import { BASE, imageName } from './names.ts';
import { CacheNote, readNote } from './notes.ts';

const STREAMS = 2;
const STALL_SECONDS = 60;

export const titleOf = (cluster: Cluster, image: string): string => `rbd ${poolOf(cluster.config)}/${image}`;

/** The cached image as it was published, or undefined where it is not in the cache. CACHE_DAMAGED where its note is. */
export async function cached(cluster: Cluster, imageId: string, format: ImageFormat): Promise<CacheNote | undefined> {
  const name = imageName('cache', imageId);
  const note = await readNote(cluster, name, CacheNote).catch((cause: unknown) => {
    if (!isCode(cause, 'IO_ERROR')) throw cause;
    throw new CisternError('CACHE_DAMAGED', cause.message, { cause });
  });
  return note?.id === imageId && note.format === format ? note : undefined;
}

/**
 * Sees to it that a cached image holds what was published. Nobody writes to a snapshot, so that a glance is whether it is there; `full` reads
 * all of it. CACHE_DAMAGED names the first part that is wrong; NOT_FOUND where the image is not there.
 */
export async function verifyImage(
  cluster: Cluster,
  imageId: string,
  format: ImageFormat,
  verification: Verification,
): Promise<{ parts: number; read: number }> {
  const image = imageName('cache', imageId);
  return inTurn(`verify ${titleOf(cluster, image)}`, async () => {
    const note = await cached(cluster, imageId, format);
    if (note === undefined)
      throw new CisternError('NOT_FOUND', `the image ${imageId} (${format}) is not in the cache of ${cluster.name}`);
    if ((await infoOf(cluster, `${image}@${BASE}`)) === undefined)
      throw new CisternError('CACHE_DAMAGED', `the cached image ${titleOf(cluster, image)} is not there, only the note of it`);
    if (!verification.full) return { parts: 0, read: 0 };
    const { content } = note;
    const found = await digests(cluster, image, content, verification);
    const wrong = content.parts.flatMap((part, i) => (part === found[i] ? [] : [i]));
    if (wrong.length === 0) return { parts: content.parts.length, read: content.size };
    const first = wrong[0]!;
    const { offset, length } = partRange(first, content.size, content.partSize);
    throw new CisternError(
      'CACHE_DAMAGED',
      `verifying ${titleOf(cluster, image)}: part ${first} (${length} bytes at ${offset}) is ${found[first]}, and was ${content.parts[first]}; ${wrong.length} of ${content.parts.length} parts are damaged`,
    );
  });
}

/** The digests of all parts of a cached image. */
export async function digests(
  cluster: Cluster,
  image: string,
  { size, partSize }: { size: number; partSize: number },
  { signal, bytesPerSecond, progress }: Verification,
): Promise<string[]> {
  const name = titleOf(cluster, image);
  const source: Source = { name, size, ranges: imageServer(cluster, image, true, name, BASE).end };
  const sink = nowhere(bytesPerSecond ? bytesPerSecond / STREAMS : null);
  const { parts } = await transfer({ source, sink, partSize, streams: STREAMS, stallSeconds: STALL_SECONDS, signal, progress });
  return parts;
}

/** Removes an image from the cache, and what has arrived of it; nothing where it is gone already. IN_USE as `removeCached`. */
export async function evict(cluster: Cluster, imageId: string): Promise<{ freed: number }> {
  const freed = await removeCached(cluster, imageId);
  await removeFill(cluster, imageId);
  return { freed };
}

/** What has arrived of an image. A crash may have left it with its snapshot already. */
export async function removeFill(cluster: Cluster, imageId: string): Promise<void> {
  const fill = imageName('fill', imageId);
  await removeObjects(cluster, [`${fill}.parts`]);
  await unprotect(cluster, fill, BASE);
  await removeImage(cluster, fill);
}

/** Returns the bytes that it took. IN_USE where a volume, or one in the trash, stands on it. */
export async function removeCached(cluster: Cluster, imageId: string): Promise<number> {
  const image = imageName('cache', imageId);
  const note = await readNote(cluster, image, CacheNote).catch(() => undefined);
  const users = await children(cluster, image, BASE);
  const refuse = (): never => {
    throw new CisternError(
      'IN_USE',
      `evicting the image ${imageId} from ${cluster.name}: ${users.length || 'some'} stand on it, such as ${users[0] ?? 'one made just now'}`,
    );
  };
  if (users.length > 0) refuse();
  await unprotect(cluster, image, BASE).catch((error: unknown) => {
    if (isCode(error, 'STORE_BUSY')) refuse();
    throw error;
  });
  await removeObjects(cluster, [image]);
  await removeImage(cluster, image);
  return note?.allocated ?? 0;
}
