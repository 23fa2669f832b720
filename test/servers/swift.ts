/** A real OpenStack Swift of our own: proxy, account, container and object server with one disk, a folder; on free loopback ports. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import type { Access } from '../../agent/backup/swift/auth.ts';
import { SwiftConfig } from '../../agent/backup/swift/config.ts';
import { openSession } from '../../agent/backup/swift/session.ts';
import { freePorts, startDaemon, type Daemon } from './daemon.ts';
import { startKeystone, type TestKeystone } from './keystone.ts';
import { proxyConfig, RINGS, storageConfig, type Kind, type Ports, type SwiftOptions } from './swift-config.ts';

export interface TestSwift extends AsyncDisposable {
  /** As a store's configuration wants it, without the container. */
  config: Record<string, unknown>;
  /** Where objects lie on this machine. */
  disk: string;
  url: string;
  keystone: TestKeystone | undefined;
  /** A request to the account with a token of its owner: `/container/object?query`. */
  request(
    method: string,
    path: string,
    options?: { headers?: Record<string, string>; body?: string | Uint8Array<ArrayBuffer> },
  ): Promise<Response>;
  /** Makes every token void, and the proxy look anew at what it remembers of containers. */
  forget(): Promise<void>;
  /** Kills the proxy, as a power cut would, and starts it again. */
  killProxy(): Promise<void>;
  startProxy(): Promise<void>;
  stop(): Promise<void>;
}

const KINDS: Kind[] = ['account', 'container', 'object'];

export async function startSwift(options: SwiftOptions = {}): Promise<TestSwift> {
  const folder = await mkdtemp(join(tmpdir(), 'cistern-swift-'));
  await using undo = new AsyncDisposableStack();
  undo.defer(() => rm(folder, { recursive: true, force: true }));
  const [proxy, memcached, account, container, object] = (await freePorts(5)) as [number, number, number, number, number];
  const ports: Ports = { proxy, memcached, account, container, object };
  const url = `http://127.0.0.1:${proxy}`;
  const disk = join(folder, 'srv', 'd1');
  for (const name of [disk, join(folder, 'cache')]) await mkdir(name, { recursive: true });
  const daemons: Daemon[] = [];
  undo.defer(async () => void (await Promise.all(daemons.map(daemon => daemon.kill()))));
  const run = async (port: number, argv: [string, ...string[]]): Promise<Daemon> => {
    const daemon = await startDaemon(folder, port, argv);
    daemons.push(daemon);
    return daemon;
  };
  const keystone = options.keystone ? await startKeystone(folder, url) : undefined;
  if (keystone) undo.defer(() => keystone.kill());
  const files = { proxy: proxyConfig(folder, ports, options, keystone) } as Record<Kind | 'proxy', string>;
  for (const kind of KINDS) files[kind] = storageConfig(folder, kind, ports[kind]);
  for (const [kind, text] of Object.entries(files)) await writeFile(join(folder, `${kind}.conf`), text);
  await execa('/usr/bin/python3', ['-c', RINGS, folder, ...KINDS.map(kind => String(ports[kind]))]);

  const runMemcached = (): Promise<Daemon> =>
    run(memcached, ['/usr/bin/memcached', '-l', '127.0.0.1', '-p', String(memcached), '-U', '0', '-m', '16', '-u', 'root']);
  const runServer = (kind: Kind | 'proxy'): Promise<Daemon> =>
    run(ports[kind], [`/usr/bin/swift-${kind}-server`, join(folder, `${kind}.conf`)]);
  const starting = await Promise.allSettled([runMemcached(), runServer('proxy'), ...KINDS.map(runServer)]);
  for (const one of starting) if (one.status === 'rejected') throw one.reason;
  let [cache, front] = starting.map(one => (one as PromiseFulfilledResult<Daemon>).value) as [Daemon, Daemon];

  const config = keystone
    ? { authUrl: keystone.url, user: keystone.user, key: keystone.password, project: keystone.project }
    : { authUrl: `${url}/auth/v1.0`, authVersion: 1, user: 'test:tester', key: 'testing' };
  const enter = async (): Promise<Access> => {
    using session = openSession(SwiftConfig.parse({ ...config, container: 'any' }));
    return await session.access();
  };
  const stack = undo.move();
  const stop = (): Promise<void> => stack.disposeAsync();
  return {
    config,
    disk,
    url,
    keystone,
    request: async (method, path, { headers = {}, body } = {}) => {
      const { token, url: account } = await enter();
      return await fetch(`${account}${path}`, {
        method,
        headers: { 'x-auth-token': token, ...headers },
        ...(body !== undefined && { body }),
        signal: AbortSignal.timeout(60_000),
      });
    },
    forget: async () => {
      await cache.kill();
      cache = await runMemcached();
    },
    killProxy: () => front.kill(),
    startProxy: async () => void (front = await runServer('proxy')),
    stop,
    [Symbol.asyncDispose]: stop,
  };
}
