/** Small objects: manifests and journals, as RADOS objects in a namespace of their own. */
import { randomBytes } from 'node:crypto';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CisternError } from '../../shared/errors.ts';
import type { Cluster } from './cluster.ts';
import { isCode, isThere } from './errors.ts';

/** A write of this size is one operation, so the object is there whole or not at all. An OSD takes up to 90 MiB (osd_max_write_size). */
const ONE_WRITE = 80 * 2 ** 20;
const REMOVED_AT_ONCE = 100;

const place = (cluster: Cluster): string[] => ['-p', cluster.config.pool, '-N', cluster.objects];

export const listObjects = async (cluster: Cluster): Promise<string[]> =>
  (await cluster.call('rados', [...place(cluster), 'ls'])).split('\n').filter(name => name !== '');

/** MANIFEST_INVALID where it is larger than `limit` bytes, OBJECT_MISSING where it is not there. */
export async function readObject(cluster: Cluster, name: string, limit: number): Promise<Buffer> {
  const said = await cluster.call('rados', [...place(cluster), 'stat', '--', name]);
  const size = Number(/size (\d+)\s*$/.exec(said)?.[1]);
  if (!(size <= limit)) {
    const found = Number.isNaN(size) ? 'an unknown number of' : String(size);
    throw new CisternError(
      'MANIFEST_INVALID',
      `reading ${name} in ${cluster.name}: it has ${found} bytes, more than the ${limit} allowed`,
    );
  }
  const file = scratch(cluster);
  try {
    await cluster.call('rados', [...place(cluster), 'get', '--', name, file]);
    return (await readFile(file)).subarray(0, limit);
  } finally {
    await rm(file, { force: true });
  }
}

export const writeObject = (cluster: Cluster, name: string, body: Buffer): Promise<void> => send(cluster, 'put', name, body);
export const appendObject = (cluster: Cluster, name: string, body: Buffer): Promise<void> => send(cluster, 'append', name, body);

async function send(cluster: Cluster, how: 'put' | 'append', name: string, body: Buffer): Promise<void> {
  const file = scratch(cluster);
  try {
    await writeFile(file, body, { mode: 0o600, flag: 'wx' });
    await cluster.call('rados', [...place(cluster), '-b', String(ONE_WRITE), how, '--', name, file]);
  } finally {
    await rm(file, { force: true });
  }
}

/** Succeeds where they are gone already. */
export async function removeObjects(cluster: Cluster, names: readonly string[]): Promise<void> {
  for (let at = 0; at < names.length; at += REMOVED_AT_ONCE) {
    const some = names.slice(at, at + REMOVED_AT_ONCE);
    try {
      await cluster.call('rados', [...place(cluster), 'rm', '--force-full', '--', ...some]);
    } catch (error) {
      if (!isCode(error, 'OBJECT_MISSING')) throw error;
      if (some.length > 1) for (const name of some) await removeObjects(cluster, [name]); // it stopped at the missing one
    }
  }
}

const scratch = (cluster: Cluster): string => join(cluster.folder, randomBytes(8).toString('hex'));

/** Makes an empty object; false where it is there already. */
export async function createObject(cluster: Cluster, name: string): Promise<boolean> {
  try {
    await cluster.call('rados', [...place(cluster), 'create', '--', name]);
    return true;
  } catch (error) {
    if (isThere(error)) return false;
    throw error;
  }
}
