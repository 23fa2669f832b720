import { setTimeout as delay } from 'node:timers/promises';
import { execa } from 'execa';
import { newId } from '../../shared/id.ts';
import { startCeph, type TestCeph } from '../servers/ceph.ts';
import { folderPlace, type Place } from './primary-targets.ts';

/** An RBD namespace of its own, a user with the rights that the README tells, and the configuration with which a pool is opened there. */
export async function poolNamespace(ceph: TestCeph) {
  const namespace = `ns-${newId().slice(-12)}`;
  await cephTool(ceph, 'rbd', ['pool', 'init', 'rbd']); // else only who may write outside of namespaces makes the first image
  await cephTool(ceph, 'rbd', ['namespace', 'create', `rbd/${namespace}`]);
  const osd = `profile rbd pool=rbd namespace=${namespace}, allow rwx pool=rbd namespace=${namespace}.cistern-pool`;
  const user = `pool-${namespace}`;
  await ceph.ceph('auth', 'get-or-create', `client.${user}`, 'mon', 'profile rbd', 'mgr', 'profile rbd', 'osd', osd);
  const key = (await ceph.ceph('auth', 'get-key', `client.${user}`)).trim();
  return { monitors: ceph.monitors, pool: 'rbd', namespace, user, key };
}

/** Runs a tool of Ceph as client.admin, in a namespace of the pool `rbd` where one is named; returns what it says. */
export async function cephTool(ceph: TestCeph, program: 'rbd' | 'rados', args: string[], namespace?: string): Promise<string> {
  const within = namespace === undefined ? [] : ['--pool', 'rbd', '--namespace', namespace];
  return (await execa(program, ['-c', ceph.conf, ...args, ...within], { timeout: 60_000, stdin: 'ignore' })).stdout;
}

/** Waits until the manager has heard of the OSD: it tells nothing of the room before. */
export async function tellsRoom(ceph: TestCeph): Promise<void> {
  const deadline = AbortSignal.timeout(60_000);
  for (;;) {
    deadline.throwIfAborted();
    const { pools } = JSON.parse(await ceph.ceph('df', '--format', 'json')) as { pools: { stats: { max_avail: number } }[] };
    if (pools.some(({ stats }) => stats.max_avail > 0)) return;
    await delay(300);
  }
}

/** A cluster with places for pools. */
export async function rbdPlaces(): Promise<AsyncDisposable & { place(): Promise<Place> }> {
  const ceph = await startCeph({ rgw: false, mgr: true });
  await tellsRoom(ceph);
  return {
    place: async () => ({ ...(await folderPlace()), type: 'rbd', config: await poolNamespace(ceph) }),
    [Symbol.asyncDispose]: () => ceph.stop(),
  };
}
