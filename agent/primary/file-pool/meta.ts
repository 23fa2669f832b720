import * as fs from 'node:fs';
import { open, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { crc32 } from 'node:zlib';
import { z } from 'zod';
import { CisternError } from '../../../shared/errors.ts';
import { Bytes, Id, ImageFormat, Name, Sha256, Time, VolumeKind } from '../../../shared/model.ts';
import { isHeld, shown } from '../../host/held.ts';
import { foreign, poolError } from './paths.ts';

/** `cache/<imageId>/meta.json`: what the cached file is, as the image's manifest told. */
export const CacheMeta = z.object({
  version: z.literal(1),
  id: Id,
  format: ImageFormat,
  size: Bytes,
  virtualSize: Bytes,
  digest: Sha256,
  createdAt: Time,
});
export type CacheMeta = z.infer<typeof CacheMeta>;

/** `volumes/<volumeId>/meta.json`: what the pool must know of a volume where no controller can be asked. */
export const VolumeMeta = z.object({
  version: z.literal(1),
  id: Id,
  layerId: Id,
  /** That it was made with, for a controller that lost its database. */
  name: Name.optional(),
  kind: VolumeKind.optional(),
  size: Bytes,
  backing: z.object({ imageId: Id, format: ImageFormat }).nullable(),
  createdAt: Time,
  deletedAt: Time.optional(),
});
export type VolumeMeta = z.infer<typeof VolumeMeta>;

const LIMIT = 64 * 1024;
const { constants } = fs;

/**
 * A small JSON file of the pool, or undefined where it is not there. Links and anything but a regular file are refused without
 * being opened for long (a planted pipe would block for ever); a file that is not what the schema says is IO_ERROR.
 */
export async function readJson<T>(path: string, schema: z.ZodType<T>, limit = LIMIT): Promise<T | undefined> {
  const text = await readSmall(path, limit);
  return text === undefined ? undefined : parse(path, () => schema.parse(JSON.parse(text)));
}

/** A file that `toMeta` made, likewise. Its checksum finds what a schema cannot: a flipped bit in a number or an id. */
export async function readMeta<T>(path: string, schema: z.ZodType<T>): Promise<T | undefined> {
  const text = await readSmall(path);
  if (text === undefined) return undefined;
  return parse(path, () => {
    const { crc32: sum, ...rest } = Summed.parse(JSON.parse(text));
    if (sum !== sumOf(rest)) throw new Error('its checksum is not that of its contents');
    return schema.parse(rest);
  });
}

const Summed = z.looseObject({ crc32: z.string() });
const sumOf = (value: object): string => crc32(JSON.stringify(value)).toString(16).padStart(8, '0');

function parse<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    throw new CisternError(
      'IO_ERROR',
      `${shown(path)} is damaged: ${cause instanceof z.ZodError ? z.prettifyError(cause) : String(cause)}`,
      { cause },
    );
  }
}

async function readSmall(path: string, limit = LIMIT): Promise<string | undefined> {
  try {
    await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    const stat = await file.stat();
    if (!stat.isFile() || stat.size > limit) throw foreign(path, `file of at most ${limit} bytes`);
    return await file.readFile('utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return undefined;
    if (code === 'ELOOP') throw foreign(path, 'file');
    throw poolError(error, `reading ${path}`);
  }
}

export const toJson = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`;

/** A meta.json: with a checksum as its last field, the CRC-32 in hex of the JSON of the others without spaces. */
export const toMeta = (value: object): string => toJson({ ...value, crc32: sumOf(value) });

/** Replaces a meta.json, durably and at once: a reader sees the old or the new one, also after a power cut. */
export async function writeMeta(path: string, value: object): Promise<void> {
  const next = `${path}.next`;
  try {
    await rm(next, { force: true });
    await createFile(next, toMeta(value));
    await rename(next, path);
    await syncPath(dirname(path));
  } catch (error) {
    await rm(next, { force: true }).catch(() => undefined); // the first error is the one to tell
    throw poolError(error, `writing ${path}`);
  }
}

/** A new file with `text`, on disk when this returns. Fails with EEXIST where anything has that name already. */
export async function createFile(path: string, text: string | Uint8Array, mode = 0o644): Promise<void> {
  await using file = await open(path, 'wx', mode);
  await file.writeFile(text);
  await file.sync();
}

const fsync = promisify(fs.fsync);

/** Makes a file's data, or a folder's names, durable. Only the slow call leaves this thread: this is on the way of every new volume. */
export async function syncPath(path: string): Promise<void> {
  // a pipe in a file's place would be waited for; `.` makes dirname() of something held lead to the folder, not to the link in /proc
  const at = isHeld(path) ? `${path}/.` : path;
  const fd = fs.openSync(at, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    await fsync(fd);
  } catch (error) {
    throw Object.assign(error as NodeJS.ErrnoException, { message: `${(error as Error).message} '${path}'` });
  } finally {
    fs.closeSync(fd);
  }
}

export const metaPath = (folder: string): string => join(folder, 'meta.json');
