import { constants } from 'node:fs';
import { open, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { Id, ImageFormat } from '../../../shared/model.ts';
import { metaPath, readMeta, VolumeMeta } from './meta.ts';

type Backing = VolumeMeta['backing'];

/** The name of a base in the header of a layer, as `createVolumes` writes it. */
const NAME = /^\.\.\/\.\.\/cache\/([^/]+)\/image\.(\w+)$/;
const Named = z.tuple([z.string(), Id, ImageFormat]);
/** Bytes of a qcow2 header that hold its fields, its extensions and the name of its backing file, at most (qcow2 specification: 1023 for the name). */
const HEADER = 4096;
const MAGIC = 'QFI\xfb';

/**
 * What a volume's folder (held) stands on; null where it stands alone, undefined where nothing in it tells. Goes by its meta.json, and where
 * that is missing or damaged by the header of its layer.
 */
export async function backingOf(folder: string): Promise<Backing | undefined> {
  const meta = await readMeta(metaPath(folder), VolumeMeta).catch(() => undefined);
  if (meta !== undefined) return meta.backing;
  const names = (await readdir(folder).catch(() => [])).filter(name => name.endsWith('.qcow2'));
  if (names.length !== 1) return undefined;
  return baseInHeader(join(folder, names[0]!)).catch(() => undefined);
}

/** What the header of a layer names; undefined where that is nothing of ours. Fields: qcow2 specification, "backing_file_offset" at 8 and "backing_file_size" at 16. */
export async function baseInHeader(path: string): Promise<Backing | undefined> {
  await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  const { buffer } = await file.read(Buffer.alloc(HEADER), 0, HEADER, 0);
  if (buffer.toString('latin1', 0, 4) !== MAGIC) return undefined;
  const [offset, size] = [Number(buffer.readBigUInt64BE(8)), buffer.readUInt32BE(16)];
  if (offset === 0) return null;
  const named = Named.safeParse(NAME.exec(buffer.toString('utf8', offset, offset + size))?.slice(0, 3));
  return named.success ? { imageId: named.data[1], format: named.data[2] } : undefined;
}
