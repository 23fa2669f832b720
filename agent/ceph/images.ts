/** RBD images by name, through the rbd program. */
import { setTimeout as delay } from 'node:timers/promises';
import { CisternError } from '../../shared/errors.ts';
import type { Cluster } from './cluster.ts';
import { poolOf } from './config.ts';
import { isCode, isThere } from './errors.ts';

/** Images have whole blocks; how many bytes of them are the object's stands in their metadata. */
const BLOCK = 4096;
const SIZE_KEY = 'cistern.size';
/** Removing asks for every object of the image: some 1,000 a second, 4 MiB each. */
const REMOVE_SECONDS = 3600;
/** A client that died holds its image open for 30 s (osd_client_watch_timeout). */
const WATCHED_MS = 45_000;
const LOOK_MS = 2000;

export const specOf = (cluster: Cluster, image: string): string => `${poolOf(cluster.config)}/${image}`;

export async function listImages(cluster: Cluster): Promise<string[]> {
  const names = JSON.parse(await cluster.call('rbd', ['ls', '--format', 'json', '--', poolOf(cluster.config)])) as unknown;
  return Array.isArray(names) ? names.filter(name => typeof name === 'string') : [];
}

/** What an image has that is made for an object of `size` bytes. */
export const imageSize = (size: number): number => Math.max(1, Math.ceil(size / BLOCK)) * BLOCK;

/** A new image without bytes. Only `layering`: the locks of other features would hold up the one that goes on after a crash. */
export async function makeImage(cluster: Cluster, image: string, size: number): Promise<void> {
  await cluster.call('rbd', [
    'create',
    '--size',
    `${imageSize(size)}B`,
    '--image-feature',
    'layering',
    '--',
    specOf(cluster, image),
  ]);
  await cluster.call('rbd', ['image-meta', 'set', '--', specOf(cluster, image), SIZE_KEY, String(size)]);
}

/** Bytes of the object in an image; fewer where the image was cut. OBJECT_MISSING where it is not there, or none of ours. */
export async function sizeOf(cluster: Cluster, image: string): Promise<number> {
  const spec = specOf(cluster, image);
  const { size } = JSON.parse(await cluster.call('rbd', ['info', '--format', 'json', '--', spec])) as { size?: unknown };
  const told = Number((await cluster.call('rbd', ['image-meta', 'get', '--', spec, SIZE_KEY])).trim());
  if (typeof size !== 'number' || !Number.isSafeInteger(told) || told < 0)
    throw new CisternError('OBJECT_MISSING', `looking at ${spec} in ${cluster.name}: it does not tell how long it is`);
  return Math.min(size, told);
}

/** Succeeds where it is gone already. STORE_BUSY where somebody keeps it open. */
export async function removeImage(cluster: Cluster, image: string): Promise<void> {
  const until = performance.now() + WATCHED_MS;
  for (;;) {
    try {
      await cluster.call('rbd', ['rm', '--no-progress', '--', specOf(cluster, image)], { seconds: REMOVE_SECONDS });
      return;
    } catch (error) {
      if (isCode(error, 'OBJECT_MISSING')) return;
      if (!isCode(error, 'STORE_BUSY') || performance.now() > until) throw error;
      await delay(LOOK_MS);
    }
  }
}

/** Gives an image its final name; one that has it already goes. */
export async function renameImage(cluster: Cluster, from: string, to: string): Promise<void> {
  const rename = (): Promise<string> => cluster.call('rbd', ['rename', '--', specOf(cluster, from), specOf(cluster, to)]);
  try {
    await rename();
  } catch (error) {
    if (!isThere(error)) throw error;
    await removeImage(cluster, to);
    await rename();
  }
}
