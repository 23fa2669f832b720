/** A Ceph pool to test against, and what lies in it as the programs of Ceph see it. */
import { setTimeout as delay } from 'node:timers/promises';
import { execa } from 'execa';
import { startCeph, type TestCeph } from '../servers/ceph.ts';
import type { BackupTarget, Config } from './backup-target.ts';

export const POOL = 'rbd';
const OBJECT = 4 * 2 ** 20;
const FULL_MS = 30_000;

/** A user of the pool with the rights that the README tells, and the configuration with which it opens the store. */
export async function userOf(
  cluster: TestCeph,
  name = 'cistern',
  mon = 'profile rbd',
  osd = `profile rbd pool=${POOL}`,
): Promise<Config> {
  await cluster.ceph('auth', 'get-or-create', `client.${name}`, 'mon', mon, 'osd', osd);
  const key = (await cluster.ceph('auth', 'get-key', `client.${name}`)).trim();
  return { monitors: cluster.monitors, pool: POOL, user: name, key };
}

export const readOnlyUser = (cluster: TestCeph): Promise<Config> =>
  userOf(cluster, 'reader', 'profile rbd-read-only', `profile rbd-read-only pool=${POOL}`);

/** Fills the cluster: it takes no more writes, whatever there is room for. */
export async function makeFull(cluster: TestCeph): Promise<void> {
  await tool(cluster, 'rados', ['-p', POOL, '-N', 'ballast', 'put', 'ballast', '-'], Buffer.alloc(2 ** 20, 1));
  for (const ratio of ['nearfull', 'backfillfull', 'full']) await cluster.ceph('osd', `set-${ratio}-ratio`, '0.0001');
  const deadline = AbortSignal.timeout(FULL_MS);
  for (;;) {
    deadline.throwIfAborted();
    const map = JSON.parse(await cluster.ceph('osd', 'dump', '--format', 'json')) as { pools: { flags_names: string }[] };
    if (map.pools.some(pool => pool.flags_names.split(',').includes('full'))) return;
    await delay(200);
  }
}

const tool = async (cluster: TestCeph, program: string, args: string[], input?: Buffer): Promise<Buffer> => {
  const all = ['-c', cluster.conf, ...args];
  const result = await execa(program, all, {
    encoding: 'buffer',
    timeout: 60_000,
    ...(input ? { input } : { stdin: 'ignore' as const }),
  });
  return Buffer.from(result.stdout);
};

/** Every image and object of the store, as paths. */
export async function filesOf(cluster: TestCeph): Promise<string[]> {
  const listings = [tool(cluster, 'rbd', ['ls', POOL]), tool(cluster, 'rados', ['-p', POOL, '-N', 'cistern', 'ls'])];
  const names = (await Promise.all(listings)).flatMap(listing => listing.toString().split('\n'));
  return names
    .filter(name => name !== '')
    .map(name => name.replaceAll('+', '/'))
    .sort();
}

export async function rbdTarget(): Promise<BackupTarget> {
  const cluster = await startCeph({ rgw: false });
  const config = await userOf(cluster);
  const nameOf = (path: string): string => path.replaceAll('/', '+');
  const isImage = (path: string): boolean => path.endsWith('/image.raw');
  const rados = (args: string[], input?: Buffer): Promise<Buffer> => tool(cluster, 'rados', ['-p', POOL, ...args], input);
  const rbd = (...args: string[]): Promise<Buffer> => tool(cluster, 'rbd', args);
  const spec = (path: string): string => `${POOL}/${nameOf(path)}`;
  return {
    config,
    missing: { config: { ...config, pool: 'nowhere' }, words: /nowhere/ },
    locked: { config: await readOnlyUser(cluster), words: /rbd/ },
    small: async () => {
      const small = await startCeph({ rgw: false });
      const its = await userOf(small);
      await makeFull(small);
      return { config: its, files: () => filesOf(small), [Symbol.asyncDispose]: () => small.stop() };
    },
    files: () => filesOf(cluster),
    readObject: async path => {
      if (!isImage(path)) return rados(['-N', 'cistern', 'get', nameOf(path), '-']);
      const size = Number((await rbd('image-meta', 'get', spec(path), 'cistern.size')).toString());
      return (await rbd('export', '--no-progress', spec(path), '-')).subarray(0, size);
    },
    writeObject: async (path, body) => void (await rados(['-N', 'cistern', 'put', nameOf(path), '-'], body)),
    stored: async path => {
      const { images } = JSON.parse((await rbd('du', '--format', 'json', spec(path))).toString()) as {
        images: [{ used_size: number }];
      };
      return images[0].used_size;
    },
    damage: async (path, offset) => {
      const info = JSON.parse((await rbd('info', '--format', 'json', spec(path))).toString()) as { block_name_prefix: string };
      const object = `${info.block_name_prefix}.${Math.floor(offset / OBJECT)
        .toString(16)
        .padStart(16, '0')}`;
      const body = await rados(['get', object, '-']);
      body[offset % OBJECT]! ^= 1;
      await rados(['put', object, '-'], body);
    },
    shorten: async (path, size) =>
      void (await rbd('resize', '--no-progress', '--allow-shrink', '--size', `${size}B`, spec(path))),
    [Symbol.asyncDispose]: () => cluster.stop(),
  };
}
