import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CisternError } from '../../../shared/errors.ts';
import { children, protect, unprotect, usedBytes } from '../../ceph/clones.ts';
import type { Cluster } from '../../ceph/cluster.ts';
import { isCode } from '../../ceph/errors.ts';
import { renameImage } from '../../ceph/images.ts';
import { beginPartial } from '../../ceph/partial.ts';
import { imageServer } from '../../ceph/server.ts';
import { inspectCopy } from '../../host/inspect-copy.ts';
import { convert } from '../../host/qemu-img.ts';
import type { Sink } from '../../transfer/ends.ts';
import { fileSink, fileSource } from '../../transfer/file-end.ts';
import { transfer } from '../../transfer/transfer.ts';
import type { CachedImage } from '../driver.ts';
import { cached, digests, removeCached, removeFill, titleOf } from './cache.ts';
import { inPool, poolError } from './errors.ts';
import { BASE, imageName } from './names.ts';
import { type CacheNote, writeNote } from './notes.ts';

/** From a file of this host; the way there has its own streams. */
const STREAMS = 2;
const STALL_SECONDS = 120;

/**
 * Where an image arrives for the cache. A raw one goes right into an RBD image. Of a qcow2 the pool keeps what a guest sees: it arrives in a
 * file of this host, is judged by its header there, and its disk moves on, each part with a digest of its own.
 */
export const cacheSink = (cluster: Cluster, image: CachedImage): Promise<Sink> =>
  image.format === 'raw' ? rawSink(cluster, image, image) : qcow2Sink(cluster, image);

interface Content {
  size: number;
  partSize: number;
  /** Tells it from other contents of the same size. */
  digest: string;
}

/** A partial RBD image, which gets its snapshot, its name and, last, its note. What is cut short is gone on with. */
async function rawSink(cluster: Cluster, image: CachedImage, content: Content): Promise<Sink> {
  const fill = imageName('fill', image.id);
  const { size, partSize } = content;
  await unprotect(cluster, fill, BASE); // a crash may have left it so
  const journal = await beginPartial(cluster, fill, { size, partSize, tag: content.digest });
  const name = titleOf(cluster, imageName('cache', image.id));
  const server = imageServer(cluster, fill, false, name);
  const remove = (): Promise<void> => removeFill(cluster, image.id);
  return {
    name,
    kept: journal.kept,
    arrived: journal.arrived,
    ranges: server.end,
    flush: journal.flush,
    publish: parts =>
      inPool(async () => {
        try {
          await journal.forget();
          await publish(cluster, image, { size, partSize, parts: [...parts] });
        } catch (error) {
          await remove().catch(() => undefined); // the first failure is what counts; the next attempt removes it too
          throw error;
        }
      }),
    abort: () => inPool(remove),
    park: () => Promise.resolve(),
  };
}

/** Where another host was first, its copy stays. */
async function publish(cluster: Cluster, image: CachedImage, content: CacheNote['content']): Promise<void> {
  const [fill, name] = [imageName('fill', image.id), imageName('cache', image.id)];
  if (await isSound(cluster, image, content)) return removeFill(cluster, image.id);
  await protect(cluster, fill, BASE);
  const allocated = (await usedBytes(cluster, fill)).get(fill) ?? 0;
  await removeCached(cluster, image.id).catch((error: unknown) => refuseDamaged(cluster, name, error)); // what is not sound, and had no note
  await renameImage(cluster, fill, name);
  const { id, format, size, virtualSize, digest } = image;
  const note: CacheNote = {
    version: 1,
    id,
    format,
    size,
    virtualSize,
    digest,
    createdAt: new Date().toISOString(),
    allocated,
    content,
  };
  await writeNote(cluster, name, note);
}

/** Whether what lies in the cache already is this image, from its first to its last byte. */
async function isSound(cluster: Cluster, image: CachedImage, content: CacheNote['content']): Promise<boolean> {
  const name = imageName('cache', image.id);
  const there = await cached(cluster, image.id, image.format).catch((error: unknown) => {
    if (isCode(error, 'CACHE_DAMAGED')) return undefined;
    throw error;
  });
  // without a note it is only worth a look where clones keep it from being replaced
  if (there?.digest !== image.digest && (await children(cluster, name, BASE)).length === 0) return false;
  const found = await digests(cluster, name, content, { signal: NEVER }).catch((error: unknown) => {
    if (isCode(error, 'OBJECT_MISSING') || isCode(error, 'IO_ERROR')) return [];
    throw error;
  });
  if (found.join() !== content.parts.join()) return false;
  if (there?.digest !== image.digest) {
    const { id, format, size, virtualSize, digest } = image;
    const allocated = (await usedBytes(cluster, name)).get(name) ?? 0;
    await writeNote(cluster, name, { version: 1, id, format, size, virtualSize, digest, createdAt: new Date().toISOString(), allocated, content }); // prettier-ignore
  }
  return true;
}

/** Clones hold on to the very blocks of the snapshot: there is no putting others in their place. */
function refuseDamaged(cluster: Cluster, name: string, error: unknown): never {
  if (!isCode(error, 'IN_USE')) throw error;
  throw new CisternError(
    'CACHE_DAMAGED',
    `replacing the damaged image ${titleOf(cluster, name)}: volumes stand on it, and show the damage too`,
    { cause: error, action: 'Flatten or delete the volumes that stand on it, then cache the image again.' },
  );
}

/** What has arrived whole is published, also when a cancel comes now. */
const NEVER = new AbortController().signal;

async function qcow2Sink(cluster: Cluster, image: CachedImage): Promise<Sink> {
  const folder = await mkdtemp(join(tmpdir(), 'fill-'));
  const file = join(folder, 'image.qcow2');
  const remove = (): Promise<void> => rm(folder, { recursive: true, force: true });
  const inner = await fileSink({
    partial: `${file}.part`,
    final: file,
    size: image.size,
    mode: 0o600,
    name: titleOf(cluster, imageName('cache', image.id)),
    codes: { full: 'NO_CAPACITY' },
  }).catch(async (error: unknown) => {
    await remove();
    throw error;
  });
  return {
    ...inner,
    publish: async parts => {
      try {
        await inner.publish(parts);
        await inspectCopy(file, image);
        await moveOn(cluster, image, file, join(folder, 'disk.raw'));
      } catch (error) {
        throw poolError(error);
      } finally {
        await remove();
      }
    },
    abort: () => inner.abort().finally(remove),
    park: () => inner.abort().finally(remove),
  };
}

async function moveOn(cluster: Cluster, image: CachedImage, file: string, raw: string): Promise<void> {
  const { virtualSize } = image;
  await convert({ source: { path: file, format: 'qcow2', backing: null }, target: raw, targetFormat: 'raw', virtualSize });
  const source = await fileSource(raw);
  const content: Content = { size: source.size, partSize: image.partSize, digest: image.digest };
  const sink = await rawSink(cluster, image, content);
  await transfer({ source, sink, partSize: content.partSize, streams: STREAMS, stallSeconds: STALL_SECONDS, signal: NEVER });
}
