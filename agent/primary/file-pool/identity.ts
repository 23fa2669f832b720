import { access, constants, link, lstat, mkdir, readdir, realpath, rm, rmdir, statfs } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import { CisternError } from '../../../shared/errors.ts';
import { type Capacity, Id, Time } from '../../../shared/model.ts';
import { createFile, readJson, syncPath, toJson } from './meta.ts';
import { keepReserve, RESERVE } from './reserve.ts';
import { type Area, AREAS, checkId, holdEntry, isFolder, type OpenPool, poolError, type PoolRoot } from './paths.ts';

/** `pool.json`: says which pool a folder is, so that an empty mount point or another pool's export is never taken for it. */
export const PoolFile = z.object({
  version: z.literal(1),
  id: Id,
  type: z.string(),
  createdAt: Time,
  /** So many folders, its own and those above it, were made for it: they go with it. */
  made: z.int().min(1).optional(),
});

const poolFile = (root: string): string => join(root, 'pool.json');
/** Names that may lie in a place that becomes a pool: what mkfs leaves, and what we may have left of an earlier try. */
const isDraft = (name: string): boolean => name.startsWith('.pool.json.');
const isVacant = (name: string): boolean => name === 'lost+found' || name === RESERVE || isDraft(name);

/**
 * Opens the folder `path` as the pool `who`. POOL_UNAVAILABLE where there is no such folder, POOL_IDENTITY where its pool.json is
 * missing or another's. With `initialize` an empty place becomes the pool; a place with anything in it is refused. `made`: so many
 * folders of the path have just been made for it.
 */
export async function openRoot(
  path: string,
  who: Omit<PoolRoot, 'root'>,
  initialize: boolean,
  made?: number,
): Promise<{ pool: PoolRoot; initialized: boolean }> {
  const root = await realpath(path).catch((cause: NodeJS.ErrnoException) => {
    throw new CisternError('POOL_UNAVAILABLE', `opening the pool folder ${path}: ${cause.message}`, { cause });
  });
  if (!(await isFolder(root))) throw new CisternError('POOL_UNAVAILABLE', `opening the pool folder ${path}: it is gone`);
  checkId(who.id);
  const pool: PoolRoot = { root, ...who };
  const initialized = initialize && (await claim(pool, made));
  try {
    await checkIdentity(pool);
    for (const area of AREAS) if (!(await isFolder(join(root, area)))) await makeArea(join(root, area));
    await syncPath(root);
    await keepReserve(pool);
  } catch (error) {
    if (initialized) await unclaim(pool);
    throw poolError(error, `opening the pool folder ${root}`);
  }
  return { pool, initialized };
}

/** What could not become a pool as a whole becomes none, so that it can be tried again. */
async function unclaim(pool: PoolRoot): Promise<void> {
  for (const area of AREAS) await rmdir(join(pool.root, area)).catch(absent);
  await disown(pool);
}

/** For each pool the pool.json that was last read and found right, by what stat tells of it: no need to read that one again. */
const approved = new WeakMap<PoolRoot, string>();

/** POOL_IDENTITY unless pool.json at the root is this pool's. Called before every piece of work, so it costs one lstat as a rule. */
async function checkIdentity(pool: PoolRoot): Promise<void> {
  const stat = await lstat(poolFile(pool.root)).catch(absent);
  const seen = stat && [stat.dev, stat.ino, stat.ctimeMs, stat.size, stat.mode].join(' ');
  if (seen !== undefined && approved.get(pool) === seen) return;
  await readIdentity(pool);
  if (seen !== undefined) approved.set(pool, seen);
}

/** What to do about a pool that another controller made, or this one before it lost its database. */
export const takeAsIs = (id: string): string =>
  `Look whether this is the right place. If no other controller works with that pool, it is added as it is by "cistern primary-storage add NAME --id ${id} ...".`;

async function readIdentity(pool: PoolRoot): Promise<void> {
  const found = await readJson(poolFile(pool.root), PoolFile).catch((error: unknown) => {
    if (!(error instanceof CisternError && error.message.includes(' is damaged: '))) throw error;
    const right = toJson({ version: 1, id: pool.id, type: pool.type, createdAt: new Date().toISOString() });
    throw new CisternError('POOL_IDENTITY', `${pool.root} should be the pool ${pool.id}, but ${error.message}`, {
      cause: error,
      action: `If the volumes in ${pool.root} are those of this pool, write this into its pool.json: ${right.replace(/\s+/g, ' ')}`,
    });
  });
  if (found === undefined)
    throw new CisternError('POOL_IDENTITY', `${pool.root} should be the pool ${pool.id}, but it has no pool.json`);
  if (found.id === pool.id && found.type === pool.type) return;
  throw new CisternError(
    'POOL_IDENTITY',
    `${pool.root} should be the ${pool.type} pool ${pool.id}, but its pool.json says ${found.type} pool ${found.id}`,
    { action: takeAsIs(found.id) },
  );
}

/**
 * Opens the pool for one piece of work, which disposes of it: it must still be itself, and its folders, which are held from now on,
 * must be plain ones. POOL_IDENTITY, IO_ERROR.
 */
export async function openPool(pool: PoolRoot): Promise<OpenPool> {
  using held = new DisposableStack();
  const hold = async (area: Area) => {
    const folder = await holdEntry(join(pool.root, area));
    return [area, folder && held.use(folder)] as const;
  };
  const opening = await Promise.allSettled([checkIdentity(pool), ...AREAS.map(hold)]);
  const failed = opening.find(one => one.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
  const areas = opening.flatMap(one => (one.status === 'fulfilled' && one.value !== undefined ? [one.value] : []));
  const lost = areas.filter(([, folder]) => folder === undefined).map(([area]) => area);
  if (lost.length > 0) throw new CisternError('POOL_IDENTITY', `the pool ${pool.root} has lost its ${lost.join(', ')} folder`);
  const owner = held.move();
  return {
    ...pool,
    base: pool,
    areas: Object.fromEntries(areas) as OpenPool['areas'],
    [Symbol.dispose]: () => owner.dispose(),
  };
}

/** Makes an empty place this pool; false where it is one already. Two hosts that try at once agree, because `link` has one winner. */
async function claim(pool: PoolRoot, made: number | undefined): Promise<boolean> {
  const target = poolFile(pool.root);
  try {
    if (await lstat(target).catch(absent)) {
      // of a crash; on a shared pool it may be another host's, at work just now
      if (!pool.shared) await removeDrafts(pool);
      return false;
    }
    const names = (await readdir(pool.root)).filter(name => !isVacant(name));
    if (names.length > 0) {
      const seen = names.slice(0, 3).join(', ') + (names.length > 3 ? ', …' : '');
      throw new CisternError(
        'POOL_IDENTITY',
        `${pool.root} cannot become a pool: it has no pool.json but is not empty (${seen})`,
        {
          action: 'Give an empty folder, or the folder of an existing pool.',
        },
      );
    }
    const draft = join(pool.root, `.pool.json.${randomUUID()}`);
    try {
      await createFile(draft, toJson({ version: 1, id: pool.id, type: pool.type, createdAt: new Date().toISOString(), made }));
      return await link(draft, target).then(() => true, lost);
    } finally {
      await rm(draft, { force: true });
    }
  } catch (error) {
    throw poolError(error, `making ${pool.root} a pool`);
  }
}

const makeArea = (path: string): Promise<void> =>
  mkdir(path, 0o755).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw poolError(error, `making ${path}`);
  });

async function removeDrafts({ root }: PoolRoot): Promise<void> {
  for (const name of await readdir(root)) if (isDraft(name)) await rm(join(root, name), { force: true });
}

/** Removes pool.json: the folder is no pool any more. It goes as well, with those above it, where it was made for the pool and is empty. */
export async function disown(pool: PoolRoot): Promise<void> {
  const { made = 0 } = (await readJson(poolFile(pool.root), PoolFile)) ?? {};
  await removeDrafts(pool);
  await rm(join(pool.root, RESERVE), { force: true });
  await rm(poolFile(pool.root), { force: true });
  await syncPath(pool.root);
  for (let level = 0, folder = pool.root; level < made; level++, folder = dirname(folder))
    if (!(await rmdir(folder).then(() => true, kept))) return;
}

/** Somebody put something there, mounted something, or was faster. */
function kept(error: NodeJS.ErrnoException): boolean {
  if (['ENOTEMPTY', 'EEXIST', 'EBUSY', 'ENOENT', 'EACCES', 'EPERM', 'EROFS'].includes(error.code ?? '')) return false;
  throw error;
}

/** POOL_UNAVAILABLE also where the file system can only be read: the kernel makes it so when its disk fails. */
export async function capacity(pool: PoolRoot): Promise<Capacity> {
  const [stat] = await Promise.all([statfs(pool.root), access(pool.root, constants.W_OK)]).catch((error: unknown) => {
    throw poolError(error, `measuring ${pool.root}`);
  });
  return { total: stat.blocks * stat.bsize, available: stat.bavail * stat.bsize };
}

function absent(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw poolError(error, 'looking at pool.json');
}

function lost(error: NodeJS.ErrnoException): boolean {
  if (error.code === 'EEXIST') return false;
  throw error;
}
