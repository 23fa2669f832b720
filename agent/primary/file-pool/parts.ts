import { join } from 'node:path';
import { z } from 'zod';
import { CisternError } from '../../../shared/errors.ts';
import { Sha256 } from '../../../shared/model.ts';
import { shown } from '../../host/held.ts';
import { digestOfParts, ZERO } from '../../transfer/parts.ts';
import { type CacheMeta, createFile, readJson } from './meta.ts';

/** `cache/<imageId>/parts.json`: what each part of the cached file must be, as the image's manifest told. */
const PartsFile = z.object({ partSize: z.int().min(4096), parts: z.array(z.union([Sha256, z.literal(ZERO)])) });
export type PartsFile = z.infer<typeof PartsFile>;

/** Bytes: the parts of some 15 TiB. */
const LIMIT = 80 * 2 ** 20;

const partsPath = (folder: string): string => join(folder, 'parts.json');

export const writeParts = (folder: string, { partSize, parts }: PartsFile): Promise<void> =>
  createFile(partsPath(folder), JSON.stringify({ partSize, parts }), 0o444);

/** The parts of a cached image. CACHE_DAMAGED where they are not there, or are not those that the digest in its meta.json was made of. */
export async function readParts(folder: string, { size, digest }: CacheMeta): Promise<PartsFile> {
  const refuse = (found: string): never => {
    throw new CisternError('CACHE_DAMAGED', shown(`${partsPath(folder)}: ${found}`));
  };
  const found = await readJson(partsPath(folder), PartsFile, LIMIT).catch((error: Error) => refuse(error.message));
  if (found === undefined) return refuse('it is not there');
  if (digestOfParts(size, found.partSize, found.parts) !== digest)
    refuse('it is damaged: its parts do not make the digest of the image');
  return found;
}
