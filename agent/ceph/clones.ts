/** Snapshots of images, and clones that stand on them. */
import { randomBytes } from 'node:crypto';
import type { Cluster } from './cluster.ts';
import { isCode, isThere } from './errors.ts';
import { removeImage, specOf } from './images.ts';

export interface ImageInfo {
  modify_timestamp?: string;
  size: number;
  /** The image that it is a clone of. */
  parent?: { image: string; snapshot: string };
}

/** A snapshot that cannot be removed while clones stand on it; one that is there is left. */
export async function protect(cluster: Cluster, image: string, snapshot: string): Promise<void> {
  const spec = `${specOf(cluster, image)}@${snapshot}`;
  await cluster.call('rbd', ['snap', 'create', '--no-progress', '--', spec]).catch(unlessThere);
  // protecting twice: (16) Device or resource busy
  await cluster.call('rbd', ['snap', 'protect', '--', spec]).catch((error: unknown) => {
    if (!isCode(error, 'STORE_BUSY')) throw error;
  });
}

/** Removes a snapshot. STORE_BUSY while clones stand on it; succeeds where it is gone. */
export async function unprotect(cluster: Cluster, image: string, snapshot: string): Promise<void> {
  const spec = `${specOf(cluster, image)}@${snapshot}`;
  try {
    await cluster.call('rbd', ['snap', 'unprotect', '--', spec]).catch((error: unknown) => {
      // (22) Invalid argument: it was not protected
      if (!/\(22\)/.test(String(error))) throw error;
    });
    await cluster.call('rbd', ['snap', 'rm', '--no-progress', '--', spec]);
  } catch (error) {
    if (!isCode(error, 'OBJECT_MISSING')) throw error;
  }
}

const READING = 'read-';

/** A new snapshot of what an image holds now, for one who reads it; to be removed after that. */
export async function snapshotToRead(cluster: Cluster, image: string): Promise<string> {
  const name = `${READING}${randomBytes(6).toString('hex')}`;
  await cluster.call('rbd', ['snap', 'create', '--no-progress', '--', `${specOf(cluster, image)}@${name}`]);
  return name;
}

/** Succeeds where it is gone. */
export async function removeSnapshot(cluster: Cluster, image: string, snapshot: string): Promise<void> {
  await cluster
    .call('rbd', ['snap', 'rm', '--no-progress', '--', `${specOf(cluster, image)}@${snapshot}`])
    .catch((error: unknown) => {
      if (!isCode(error, 'OBJECT_MISSING')) throw error;
    });
}

/** Removes an image with the snapshots that readers left who died. */
export async function removeWithSnapshots(cluster: Cluster, image: string): Promise<void> {
  try {
    await removeImage(cluster, image);
  } catch (error) {
    if (!/has snapshots/.test(String(error))) throw error;
    await cluster.call('rbd', ['snap', 'purge', '--no-progress', '--', specOf(cluster, image)]);
    await removeImage(cluster, image);
  }
}

/** Names of the images that stand on a snapshot. */
export async function children(cluster: Cluster, image: string, snapshot: string): Promise<string[]> {
  const spec = `${specOf(cluster, image)}@${snapshot}`;
  try {
    const said = JSON.parse(await cluster.call('rbd', ['children', '--all', '--format', 'json', '--', spec])) as {
      image: string;
    }[];
    return said.map(one => one.image);
  } catch (error) {
    if (isCode(error, 'OBJECT_MISSING')) return [];
    throw error;
  }
}

/** false where an image of that name is there already. */
export async function clone(cluster: Cluster, from: string, snapshot: string, to: string): Promise<boolean> {
  return made(cluster.call('rbd', ['clone', '--', `${specOf(cluster, from)}@${snapshot}`, specOf(cluster, to)]));
}

/** An image of `size` bytes without any; false where one of that name is there already. */
export const createImage = (cluster: Cluster, image: string, size: number): Promise<boolean> =>
  made(cluster.call('rbd', ['create', '--size', `${size}B`, '--', specOf(cluster, image)]));

const made = (calling: Promise<unknown>): Promise<boolean> =>
  calling.then(
    () => true,
    error => {
      if (isThere(error)) return false;
      throw error;
    },
  );

/** To exactly `size` bytes. */
export const resizeImage = async (cluster: Cluster, image: string, size: number): Promise<void> =>
  void (await cluster.call('rbd', [
    'resize',
    '--no-progress',
    '--allow-shrink',
    '--size',
    `${size}B`,
    '--',
    specOf(cluster, image),
  ]));

/** Undefined where it is not there. */
export async function infoOf(cluster: Cluster, image: string): Promise<ImageInfo | undefined> {
  try {
    return JSON.parse(await cluster.call('rbd', ['info', '--format', 'json', '--', specOf(cluster, image)])) as ImageInfo;
  } catch (error) {
    if (isCode(error, 'OBJECT_MISSING')) return undefined;
    throw error;
  }
}

/** Addresses of those who have an image open for writing; none where it is not there. */
export async function watchers(cluster: Cluster, image: string): Promise<string[]> {
  try {
    const said = JSON.parse(await cluster.call('rbd', ['status', '--format', 'json', '--', specOf(cluster, image)])) as {
      watchers: { address: string }[];
    };
    return said.watchers.map(({ address }) => address);
  } catch (error) {
    if (isCode(error, 'OBJECT_MISSING')) return [];
    throw error;
  }
}

/** Bytes that each image takes, its snapshots included, by name. */
export async function usedBytes(cluster: Cluster, image?: string): Promise<Map<string, number>> {
  const { pool, namespace } = cluster.config;
  const all = ['--pool', pool, ...(namespace === undefined ? [] : ['--namespace', namespace])];
  const what = image === undefined ? all : ['--', specOf(cluster, image)];
  const said = JSON.parse(await cluster.call('rbd', ['du', '--format', 'json', ...what], { seconds: 300 })) as {
    images: { name: string; used_size: number }[];
  };
  const used = new Map<string, number>();
  for (const { name, used_size } of said.images) used.set(name, (used.get(name) ?? 0) + used_size);
  return used;
}

const unlessThere = (error: unknown): void => {
  if (!isThere(error)) throw error;
};
