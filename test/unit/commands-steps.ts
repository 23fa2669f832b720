import assert from 'node:assert/strict';
import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { newId } from '../../shared/id.ts';
import { type Host, MiB, ref } from './commands-host.ts';

export type Store = Awaited<ReturnType<Host['store']>>;
export type Pool = Awaited<ReturnType<Host['pool']>>;

export interface Image {
  id: string;
  format: 'qcow2';
  digest: string;
}

/** A raw disk of 8 MiB as an image on stores. */
export async function importDisk(host: Host, disk: string, ...stores: Store[]): Promise<Image> {
  const it = { id: newId(), format: 'qcow2' as const };
  const path = join(host.base, 'spool', newId());
  await copyFile(disk, path);
  const input = {
    image: it,
    source: { type: 'upload' as const, size: null },
    sourceFormat: null,
    expectedSha256: null,
    stores: stores.map(ref),
  };
  const { digest } = await host.run('image.import', input, { upload: { path, size: 8 * MiB, sha256: '0'.repeat(64) } });
  return { ...it, digest };
}

export const fillCache = (host: Host, pool: Pool, it: Image, stores: Store[], options: Parameters<Host['run']>[2] = {}) =>
  host.run('cache.fill', { pool: ref(pool), image: it, stores: stores.map(ref) }, options);

/** Clones of a cached image; their paths. */
export async function cloneImage(
  host: Host,
  pool: Pool,
  it: Image,
  count: number,
): Promise<{ id: string; layerId: string; path: string }[]> {
  const volumes = Array.from({ length: count }, () => ({ id: newId(), layerId: newId() }));
  const backing = { imageId: it.id, format: it.format, virtualSize: 8 * MiB, digest: it.digest };
  assert.equal((await host.run('volume.create', { pool: ref(pool), volumes, size: null, backing })).size, 8 * MiB);
  return volumes.map(volume => ({ ...volume, path: join(pool.path, 'volumes', volume.id, `${volume.layerId}.qcow2`) }));
}
