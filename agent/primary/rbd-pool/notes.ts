/** Small objects that tell what an image of the pool is: what it must know of itself where no controller can be asked. */
import { z } from 'zod';
import { CisternError } from '../../../shared/errors.ts';
import { Bytes, Id, Sha256, Time } from '../../../shared/model.ts';
import type { Cluster } from '../../ceph/cluster.ts';
import { isCode } from '../../ceph/errors.ts';
import { readObject, writeObject } from '../../ceph/objects.ts';
import { ZERO } from '../../transfer/parts.ts';
import { CacheMeta, VolumeMeta } from '../file-pool/meta.ts';

/** Parts of some 15 TiB. */
const LIMIT = 80 * 2 ** 20;
const Parts = z.array(z.union([Sha256, z.literal(ZERO)]));

/** Of a cached image: what was published, and what its RBD image holds, which is the disk that a guest sees. */
export const CacheNote = CacheMeta.extend({
  /** It does not change any more. */
  allocated: Bytes,
  content: z.object({ size: Bytes, partSize: z.int().min(4096), parts: Parts }),
});
export type CacheNote = z.infer<typeof CacheNote>;
export const VolumeNote = VolumeMeta;
export type VolumeNote = z.infer<typeof VolumeNote>;
export const PoolNote = z.object({ version: z.literal(1), id: Id, type: z.literal('rbd'), createdAt: Time });

/** Undefined where there is none. IO_ERROR where it is not what it should be. */
export async function readNote<T>(cluster: Cluster, name: string, schema: z.ZodType<T>): Promise<T | undefined> {
  const body = await readObject(cluster, name, LIMIT).catch((error: unknown) => {
    if (isCode(error, 'OBJECT_MISSING')) return undefined;
    throw error;
  });
  if (body === undefined) return undefined;
  try {
    return schema.parse(JSON.parse(body.toString('utf8')));
  } catch (cause) {
    const why = cause instanceof z.ZodError ? z.prettifyError(cause) : String(cause);
    throw new CisternError('IO_ERROR', `the note ${name} in ${cluster.name} is damaged: ${why}`, { cause });
  }
}

export const writeNote = (cluster: Cluster, name: string, note: object): Promise<void> =>
  writeObject(cluster, name, Buffer.from(JSON.stringify(note)));
