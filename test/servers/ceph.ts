/** A real Ceph cluster of our own on free loopback ports: RADOS (RBD), and with `rgw` S3 and Swift. Ready within seconds; needs no root. */
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createConnection, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { execa } from 'execa';
import { cephConfig } from './ceph-config.ts';

const READY_MS = 60_000;

export interface TestCeph extends AsyncDisposable {
  /** Configuration file of the cluster, for command line tools (`-c`). */
  conf: string;
  /** Keyring of client.admin, for command line tools (`-k`). */
  keyring: string;
  /** Addresses of the monitors, as `mon_host` wants them. */
  monitors: string;
  /** Runs `ceph` as client.admin; returns what it says. */
  ceph(...args: string[]): Promise<string>;
  /** Runs `radosgw-admin`; returns what it says. */
  admin(...args: string[]): Promise<string>;
  /** S3 and Swift: `user` may make buckets; `other` is another user of the same server. */
  rgw: { port: number; endpoint: string; user: RgwUser; other: RgwUser };
  stop(): Promise<void>;
}

export interface RgwUser {
  uid: string;
  accessKey: string;
  secretKey: string;
  /** For Swift's v1 authentication at `/auth/v1.0`. */
  swift: { user: string; key: string };
}

interface CephOptions {
  rgw?: boolean;
  /** Only a manager tells how full pools are. */
  mgr?: boolean;
  /** `bluestore` keeps its data in a sparse file, `memstore` (2 GiB at most) in memory. */
  store?: 'memstore' | 'bluestore';
}

/** Throws where Ceph is not installed. */
export async function startCeph(options: CephOptions = {}): Promise<TestCeph> {
  const { rgw = true, mgr = false, store = 'memstore' } = options;
  const folder = await mkdtemp(join(tmpdir(), 'cistern-ceph-'));
  const conf = join(folder, 'ceph.conf');
  const keyring = join(folder, 'keyring');
  const daemons: { kill(signal: 'SIGKILL'): boolean; ended: Promise<unknown> }[] = [];
  const stop = async (): Promise<void> => {
    for (const { kill } of daemons.toReversed()) kill('SIGKILL'); // an orderly end takes five seconds
    await Promise.all(daemons.map(({ ended }) => ended));
    await rm(folder, { recursive: true, force: true });
  };
  const run = async (file: string, ...args: string[]): Promise<string> =>
    (await execa(file, args, { env: { CEPH_CONF: conf }, timeout: READY_MS, stdin: 'ignore' })).stdout;
  const daemon = (file: string, ...args: string[]): void => {
    const child = execa(file, ['-f', '-c', conf, ...args], { stdio: 'ignore', reject: false, cleanup: true });
    daemons.push({ kill: signal => child.kill(signal), ended: child });
  };
  const key = (name: string, ...caps: string[]): Promise<string> =>
    run('ceph-authtool', keyring, '--gen-key', '-n', name, ...caps.flatMap(cap => ['--cap', ...cap.split('=', 2)] as string[]));
  try {
    for (const name of ['run', 'log', 'mon', 'osd', 'mgr', 'rgw']) await mkdir(join(folder, name));
    const [v1, v2, rgwPort] = (await freePorts(3)) as [number, number, number];
    const fsid = randomUUID();
    const monitors = `[v2:127.0.0.1:${v2},v1:127.0.0.1:${v1}]`;
    await writeFile(conf, cephConfig({ folder, fsid, monPorts: { v1, v2 }, rgwPort, store }));
    await writeFile(keyring, '', { mode: 0o600 });
    await key('mon.', 'mon=allow *');
    await key('client.admin', 'mon=allow *', 'osd=allow *', 'mgr=allow *');
    await key('client.rgw.a', 'mon=allow rw', 'osd=allow rwx');
    if (mgr) await key('mgr.x', 'mon=allow profile mgr', 'osd=allow *');
    const monmap = join(folder, 'monmap');
    await run('monmaptool', '--create', '--fsid', fsid, '--addv', 'a', monitors, monmap);
    await run('ceph-mon', '--mkfs', '-i', 'a', '--monmap', monmap, '--keyring', keyring, '-c', conf);
    daemon('ceph-mon', '-i', 'a');

    const ceph = (...args: string[]): Promise<string> => run('ceph', '-c', conf, '--connect-timeout', '30', ...args);
    const osdId = randomUUID();
    const osdKey = (await run('ceph-authtool', '--gen-print-key')).trim();
    await writeFile(join(folder, 'osd.json'), JSON.stringify({ cephx_secret: osdKey }), { mode: 0o600 });
    await ceph('osd', 'new', osdId, '-i', join(folder, 'osd.json'));
    await writeFile(join(folder, 'osd', 'keyring'), `[osd.0]\n\tkey = ${osdKey}\n`, { mode: 0o600 });
    await run('ceph-osd', '-i', '0', '-c', conf, '--mkfs', '--osd-uuid', osdId);
    daemon('ceph-osd', '-i', '0');
    if (mgr) daemon('ceph-mgr', '-i', 'x');
    if (rgw) daemon('radosgw', '-n', 'client.rgw.a'); // waits for the OSD

    const admin = (...args: string[]): Promise<string> => run('radosgw-admin', '-c', conf, '-n', 'client.rgw.a', ...args);
    if (rgw) await answers(rgwPort);
    else await ceph('osd', 'pool', 'create', 'rbd', '8', '8');
    const [user, other] = [rgwUser('cistern'), rgwUser('other')] as const;
    if (rgw) for (const one of [user, other]) await makeUser(admin, one);
    const endpoint = `http://127.0.0.1:${rgwPort}`;
    return {
      conf,
      keyring,
      monitors,
      ceph,
      admin,
      rgw: { port: rgwPort, endpoint, user, other },
      stop,
      [Symbol.asyncDispose]: stop,
    };
  } catch (error) {
    const said = await Promise.all(['mon.a', 'osd.0', 'client.rgw.a'].map(name => tail(join(folder, 'log', `${name}.log`))));
    await stop();
    throw new Error(`starting Ceph: ${(error as Error).message}\n${said.join('\n')}`, { cause: error });
  }
}

const rgwUser = (uid: string): RgwUser => ({
  uid,
  accessKey: `AK${uid.toUpperCase()}`,
  secretKey: `secret/of+${uid}`,
  swift: { user: `${uid}:swift`, key: `swift-secret-of-${uid}` },
});

async function makeUser(admin: TestCeph['admin'], { uid, accessKey, secretKey, swift }: RgwUser): Promise<void> {
  const keys = ['--access-key', accessKey, '--secret-key', secretKey];
  await admin('user', 'create', '--uid', uid, '--display-name', uid, ...keys);
  const access = ['--access', 'full', '--key-type', 'swift', '--secret', swift.key];
  await admin('subuser', 'create', '--uid', uid, '--subuser', swift.user, ...access);
}

async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'));
  await Promise.all(servers.map(server => once(server, 'listening')));
  const ports = servers.map(server => (server.address() as { port: number }).port);
  await Promise.all(servers.map(server => once(server.close(), 'close')));
  return ports;
}

/** Waits until somebody listens. */
async function answers(port: number): Promise<void> {
  const deadline = AbortSignal.timeout(READY_MS);
  for (;;) {
    deadline.throwIfAborted();
    const socket = createConnection({ port, host: '127.0.0.1' });
    const there = await once(socket, 'connect').then(
      () => true,
      () => false,
    );
    socket.destroy();
    if (there) return;
    await delay(50);
  }
}

const tail = async (file: string): Promise<string> => (await readFile(file, 'utf8').catch(() => '')).slice(-1000);
