import { lstat } from 'node:fs/promises';
import { join } from 'node:path';
import { CisternError } from '../../../shared/errors.ts';

/** The folders of a file pool. Whatever is unfinished lies in `tmp`; the rest is reached by one rename from there. */
export const AREAS = ['cache', 'volumes', 'trash', 'tmp'] as const;
export type Area = (typeof AREAS)[number];

/** An open file pool: its root (absolute, links resolved once when it was opened) and who it is. */
export interface PoolRoot {
  root: string;
  id: string;
  type: string;
  /** Whether other hosts see the same files. */
  shared: boolean;
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** Whether a name found in the pool can be one of ours. */
export const isId = (name: string): boolean => UUID.test(name);

/** `id`, where it is a lower-case UUID; BAD_REQUEST else, so that no id ever becomes more than one path segment. */
export function checkId(id: string): string {
  if (isId(id)) return id;
  throw new CisternError('BAD_REQUEST', `an id in a pool must be a lower-case UUID, not ${JSON.stringify(id.slice(0, 80))}`);
}

export const areaPath = (pool: PoolRoot, area: Area): string => join(pool.root, area);
export const entryPath = (pool: PoolRoot, area: Area, id: string): string => join(pool.root, area, checkId(id));

/** Whether a folder is there. A link, or anything else under that name, is IO_ERROR: no link inside a pool is ever followed. */
export async function isFolder(path: string): Promise<boolean> {
  const found = await lstat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw poolError(error, `looking at ${path}`);
  });
  if (found !== undefined && !found.isDirectory()) throw foreign(path, 'folder');
  return found !== undefined;
}

/** The size and allocation of a regular file, or undefined where there is none. Links are IO_ERROR. */
export async function fileStat(path: string): Promise<{ size: number; allocated: number } | undefined> {
  const found = await lstat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw poolError(error, `looking at ${path}`);
  });
  if (found === undefined) return undefined;
  if (!found.isFile()) throw foreign(path, 'file');
  return { size: found.size, allocated: found.blocks * 512 };
}

export const foreign = (path: string, expected: string): CisternError =>
  new CisternError('IO_ERROR', `${path} is not a plain ${expected}: somebody changed the pool; it was left as it is`);

const FULL = ['ENOSPC', 'EDQUOT'];
const GONE = ['EROFS', 'EIO', 'ESTALE', 'ENOTCONN', 'ETIMEDOUT', 'EHOSTDOWN', 'ENODEV', 'ENXIO'];

/** Whether a call failed for want of room. */
export const isFull = (error: unknown): boolean =>
  error instanceof CisternError
    ? error.code === 'POOL_FULL' || /no space left on device|disk quota exceeded/i.test(error.message)
    : FULL.includes((error as NodeJS.ErrnoException).code ?? '');

/** A failed system call on a pool as the error a user should see: POOL_FULL, POOL_UNAVAILABLE or IO_ERROR. Cancels pass through. */
export function poolError(error: unknown, tried: string): Error {
  if (isFull(error)) return full(error as Error, tried);
  if (error instanceof CisternError) return error;
  const errno = error as NodeJS.ErrnoException;
  if (errno.name === 'AbortError') return errno;
  return new CisternError(GONE.includes(errno.code ?? '') ? 'POOL_UNAVAILABLE' : 'IO_ERROR', `${tried}: ${errno.message}`, {
    cause: error,
  });
}

const full = (error: Error, tried: string): CisternError =>
  error instanceof CisternError && error.code === 'POOL_FULL'
    ? error
    : new CisternError('POOL_FULL', `${tried}: ${error.message}`, { cause: error });
