/** A whole installation for end-to-end tests: controller, agents, a web server of images and, where asked for, an SSH server. */
import assert from 'node:assert/strict';
import { createCipheriv, createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { execa } from 'execa';
import { CisternError, type ErrorCode } from '../../shared/errors.ts';
import { FINAL_STATES, type Operation, type Volume } from '../../shared/model.ts';
import { type Api, type Cistern, type CisternOptions, done, startCistern, WAIT } from '../servers/cistern.ts';
import { type ImageServer, startImageServer } from '../servers/http-image-server.ts';
import { startSshd, type TestSshd } from '../servers/sshd.ts';

export const MiB = 2 ** 20;
const DEADLINE_MS = 45_000;
const YEARLY = '0 0 1 1 *';

/** Looks again until `look` returns something. */
export async function until<T>(
  what: string,
  look: () => T | undefined | false | Promise<T | undefined | false>,
  deadlineMs = DEADLINE_MS,
): Promise<T> {
  const end = performance.now() + deadlineMs;
  for (;;) {
    const seen = await look();
    if (seen) return seen;
    assert.ok(performance.now() < end, `${what}: not seen within ${deadlineMs / 1000} s`);
    await delay(30);
  }
}

/** For `assert.rejects`: a CisternError of this code whose detail fits. */
export const failsWith =
  (code: ErrorCode, detail = /./) =>
  (error: unknown): boolean => {
    assert.ok(error instanceof CisternError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, detail);
    return true;
  };

/** A raw disk: a partition table, and random bytes (the same for the same `seed`) here and there; the rest are holes. */
export async function makeDisk(path: string, size: number, seed: string): Promise<string> {
  await using file = await open(path, 'wx');
  await file.truncate(size);
  const block = noise(seed, MiB);
  for (let at = 0; at + MiB <= size; at += 4 * MiB) {
    block.writeDoubleLE(at); // no two blocks are alike
    await file.write(block, 0, MiB, at);
  }
  const table = Buffer.alloc(512);
  table.set([0x80, 0, 0, 0, 0x83, 0, 0, 0], 446); // one bootable Linux partition from sector 8 to the end
  table.writeUInt32LE(8, 454);
  table.writeUInt32LE(size / 512 - 8, 458);
  table.set([0x55, 0xaa], 510);
  await file.write(table, 0, 512, 0);
  return path;
}

/** Bytes that look random and do not pack. */
export function noise(seed: string, size: number): Buffer {
  const key = createHash('sha256').update(seed).digest();
  return createCipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(size));
}

export const sha256 = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex');

/** Fails unless two disks show a guest the same bytes. */
export async function sameContent(a: { path: string; format: string }, b: { path: string; format: string }): Promise<void> {
  const { exitCode, stdout, stderr } = await execa(
    'qemu-img',
    ['compare', '-f', a.format, '-F', b.format, '--', a.path, b.path],
    {
      reject: false,
    },
  );
  assert.equal(exitCode, 0, `${a.path} and ${b.path}: ${stdout}${stderr}`);
}

/** Every file below `folder`, relative to it, none where it is gone; not those of tasks that come and go by themselves. */
export const filesBelow = (folder: string): string[] =>
  (existsSync(folder) ? readdirSync(folder, { recursive: true, withFileTypes: true }) : [])
    .filter(entry => entry.isFile())
    .map(entry => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort();

/** Everything that the API lists, as it is now: to see that something changed nothing. Figures that are measured are left out. */
export async function dump(api: Api): Promise<unknown> {
  const all = await Promise.all([
    api.listClusters(),
    api.listHosts(),
    api.listPrimaryStorages(),
    api.listBackupStorages(),
    api.listImages(),
    api.listVolumes(),
    api.listCache(),
    api.listTrash(),
    api.listOperations({ query: { limit: 1000 } }),
  ]);
  const unstable = new Set(['lastSeenAt', 'lastUsedAt', 'facts', 'available', 'allocated']);
  return JSON.parse(JSON.stringify(all, (key, value: unknown) => (unstable.has(key) ? undefined : value)));
}

/** Schedules that come once a year, for tests in which nothing is to happen by itself. */
export const NO_SCHEDULES = { capacity: YEARLY, trash: YEARLY, cache: YEARLY, prune: YEARLY, reconnect: YEARLY };

export interface House extends AsyncDisposable {
  cistern: Cistern;
  api: Api;
  web: ImageServer;
  /** Folder that `web` serves. */
  files: string;
  sshd: TestSshd;
  /** A new folder as backup storage; returns the folder. */
  addStore(name: string): Promise<string>;
  /** The SSH server as backup storage. */
  addSftp(name: string, path?: string): Promise<void>;
  /**
   * A local primary storage: in a folder of each host's own, also where hosts are on one machine. Returns where a host has it.
   */
  addPool(name: string, settings?: { overcommit?: number }): Promise<(host: number) => string>;
  /** Imports a file that `web` serves. */
  importFile(file: string, request?: Partial<Parameters<Api['importImage']>[0]['body']>): Promise<Operation>;
  volumeFile(pool: string, volume: Volume): { path: string; format: string };
  ended(id: string): Promise<Operation>;
}

/** Starts everything; `sshd` only where asked for. */
export async function openHouse(options: CisternOptions & { sshd?: boolean } = {}): Promise<House> {
  await using stack = new AsyncDisposableStack();
  const folder = mkdtempSync(join(tmpdir(), 'cistern-e2e-'));
  stack.defer(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));
  const files = join(folder, 'www');
  mkdirSync(files);
  const web = stack.use(await startImageServer(files));
  const sshd = options.sshd ? stack.use(await startSshd()) : undefined;
  const { sshd: _, ...rest } = options;
  const cistern = stack.use(await startCistern(folder, rest));
  const { api } = cistern;
  const house: House = {
    cistern,
    api,
    web,
    files,
    get sshd() {
      assert.ok(sshd, 'this house has no SSH server');
      return sshd;
    },
    async addStore(name) {
      const path = cistern.dir(`store-${name}`);
      await done(api.addBackupStorage({ body: { name, type: 'dir', config: { path } } }, WAIT));
      return path;
    },
    async addSftp(name, path) {
      const { host, port, user, hostKey, privateKey } = house.sshd;
      const config = { host, port, user, hostKey, privateKey, path: path ?? house.sshd.path };
      await done(api.addBackupStorage({ body: { name, type: 'sftp', config } }, WAIT));
    },
    async addPool(name, settings = {}) {
      // seen from an agent, its working folder is the folder of its host
      const config = { path: `/proc/self/cwd/pool-${name}` };
      await done(api.addPrimaryStorage({ body: { name, type: 'local', config, ...settings } }, WAIT));
      return host => join(folder, `host-${host}`, `pool-${name}`);
    },
    importFile: (file, request = {}) =>
      api.importImage(
        { body: { name: file.split('.')[0]!, source: { type: 'url', url: `${web.url}/${file}` }, ...request } },
        WAIT,
      ),
    volumeFile: (pool, volume) => ({ path: join(pool, volume.path!), format: 'qcow2' }),
    ended: id =>
      until(`the end of operation ${id}`, async () => {
        const operation = await api.getOperation({ params: { ref: id }, query: { wait: 5 } });
        return FINAL_STATES.includes(operation.state) && operation;
      }),
    [Symbol.asyncDispose]: () => owner.disposeAsync(),
  };
  const owner = stack.move();
  return house;
}
