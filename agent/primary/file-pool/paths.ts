import { fstatSync } from 'node:fs';
import { lstat } from 'node:fs/promises';
import { isAbsolute, join, normalize } from 'node:path';
import { CisternError, type ErrorCode } from '../../../shared/errors.ts';
import { type Held, holdFile, holdFolder, shown } from '../../host/held.ts';
import { isNoRoom, isStale, saidOf } from '../../host/no-room.ts';

/** Whether a pool may be told to lie there. */
export const isPoolPath = (path: string): boolean =>
  isAbsolute(path) && normalize(path) === path && path !== '/' && !path.endsWith('/') && !path.includes('\0');
export const POOL_PATH_WORDS = 'an absolute path without "..", "." or a slash at its end';

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

/** A file pool at work, its folders held: what is done in them is done there, whatever is put in their place meanwhile. */
export interface OpenPool extends PoolRoot, Disposable {
  /** The pool itself, to be opened again. */
  base: PoolRoot;
  areas: Record<Area, Held>;
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** Whether a name found in the pool can be one of ours. */
export const isId = (name: string): boolean => UUID.test(name);

/** `id`, where it is a lower-case UUID; BAD_REQUEST else, so that no id ever becomes more than one path segment. */
export function checkId(id: string): string {
  if (isId(id)) return id;
  throw new CisternError('BAD_REQUEST', `an id in a pool must be a lower-case UUID, not ${JSON.stringify(id.slice(0, 80))}`);
}

/** For system calls while the pool is open. */
export const areaPath = (pool: OpenPool, area: Area): string => pool.areas[area].path;
/** For system calls on the entry itself while the pool is open; for what is in it, hold it: see `holdEntry`. */
export const entryPath = (pool: OpenPool, area: Area, id: string): string => join(areaPath(pool, area), checkId(id));
/** Where an entry shows on this host: for messages, as a key, and for programs that have the pool's word for it. */
export const entryName = (pool: PoolRoot, area: Area, id: string): string => join(pool.root, area, checkId(id));

/** Holds a folder inside the pool, or undefined where there is none. A link, or anything else under that name, is IO_ERROR. */
export async function holdEntry(path: string): Promise<Held | undefined> {
  return holdFolder(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    if (error.code === 'ENOTDIR' || error.code === 'ELOOP') throw foreign(path, 'folder');
    throw poolError(error, `looking at ${path}`);
  });
}

/** Holds a regular file inside the pool, or undefined where there is none. A link, or anything else under that name, is IO_ERROR. */
export async function holdLayer(path: string): Promise<Held | undefined> {
  const file = await holdFile(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    // a socket or a device without a driver
    if (error.code === 'ELOOP' || error.code === 'ENXIO') throw foreign(path, 'file');
    throw poolError(error, `opening ${path}`);
  });
  if (file === undefined || fstatSync(file.fd).isFile()) return file;
  file[Symbol.dispose]();
  throw foreign(path, 'file');
}

/** Whether a folder is there. A link, or anything else under that name, is IO_ERROR: no link inside a pool is ever followed. */
export async function isFolder(path: string): Promise<boolean> {
  const found = await lstat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw poolError(error, `looking at ${path}`);
  });
  if (found !== undefined && !found.isDirectory()) throw foreign(path, 'folder');
  return found !== undefined;
}

/** The size of a regular file, or undefined where there is none. Links are IO_ERROR. */
export async function fileStat(path: string): Promise<{ size: number } | undefined> {
  const found = await lstat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw poolError(error, `looking at ${path}`);
  });
  if (found === undefined) return undefined;
  if (!found.isFile()) throw foreign(path, 'file');
  return { size: found.size };
}

export const foreign = (path: string, expected: string): CisternError =>
  new CisternError('IO_ERROR', `${shown(path)} is not a plain ${expected}: somebody changed the pool; it was left as it is`);

const GONE = ['EROFS', 'ENOTCONN', 'ETIMEDOUT', 'EHOSTDOWN', 'ENODEV', 'ENXIO'];

/** Whether a call failed for want of room. */
export const isFull = (error: unknown): boolean =>
  error instanceof CisternError
    ? error.code === 'POOL_FULL' || isNoRoom(error.cause) || /no space left on device|disk quota exceeded/i.test(error.message)
    : isNoRoom(error);

/** Whether a call, or a program that says so, failed because of the disk or the server below the pool. */
const saysOf = (error: unknown, codes: string[], words: RegExp): boolean =>
  error instanceof CisternError
    ? ['IO_ERROR', 'TOOL_FAILED'].includes(error.code) && words.test(error.message)
    : codes.includes((error as NodeJS.ErrnoException).code ?? '');
const isBroken = (error: unknown): boolean => saysOf(error, ['EIO'], /\bEIO\b|input\/output error/i);
const isGone = (error: unknown): boolean =>
  isStale(error) || saysOf(error, GONE, /\bEROFS\b|read-only file system|stale file handle/i);

/** A failed system call on a pool as the error a user should see: POOL_FULL, POOL_IO_ERROR, POOL_UNAVAILABLE or IO_ERROR. Cancels pass through. */
export function poolError(error: unknown, tried: string): Error {
  if (isFull(error)) return as('POOL_FULL', error as Error, tried);
  if (isBroken(error)) return as('POOL_IO_ERROR', error as Error, tried);
  if (isGone(error)) return as('POOL_UNAVAILABLE', error as Error, tried);
  if (error instanceof CisternError) return named(error);
  if (error instanceof Error && error.name === 'AbortError') return error;
  return as('IO_ERROR', error as Error, tried);
}

/** The error with the names of what was held, in place of the paths by which it was held. */
export function named(error: CisternError): CisternError {
  error.message = shown(error.message);
  return error;
}

const as = (code: ErrorCode, error: Error, tried: string): CisternError =>
  error instanceof CisternError && error.code === code
    ? error
    : new CisternError(code, shown(`${tried}: ${saidOf(error)}`), { cause: error });
