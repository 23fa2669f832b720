/** What only a Ceph cluster can do wrong: keys, monitors, pools that fill up, and the program between it and us. */
import assert from 'node:assert/strict';
import { readdir, readFile, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { BackupStore } from '../../agent/backup/driver.ts';
import { fetchImage, publishImage, removeImage } from '../../agent/backup/layout.ts';
import { openBackupStore } from '../../agent/backup/registry.ts';
import { newId } from '../../shared/id.ts';
import { startCeph, type TestCeph } from '../servers/ceph.ts';
import { descendants } from '../servers/processes.ts';
import { filesOf, makeFull, userOf } from './backup-rbd-target.ts';
import { gatedSink, gatedSource } from './gate-end.ts';

const never = new AbortController().signal;
const MiB = 2 ** 20;
const PART = 4 * MiB;
const calm = { streams: 2, stallSeconds: 40, signal: never, partSize: PART };
const image = (id = newId()) => ({ id, format: 'raw' as const, virtualSize: 0 });

async function opened(config: Record<string, unknown>): Promise<BackupStore & AsyncDisposable> {
  const store = await openBackupStore({ id: newId(), type: 'rbd', config }, never);
  return { ...store, [Symbol.asyncDispose]: () => store.close() };
}
const ourFolders = async (): Promise<string[]> =>
  (await readdir(tmpdir())).filter(name => name.startsWith(`cistern-rbd-${process.pid}-`));

/** Pids and arguments of what this process has started. */
async function children(): Promise<{ pid: number; args: string }[]> {
  const found = (await descendants(process.pid)).map(async pid => ({
    pid,
    args: await readFile(`/proc/${pid}/cmdline`, 'latin1').catch(() => ''),
  }));
  return await Promise.all(found);
}
const nbds = async (): Promise<number[]> =>
  (await children()).filter(({ args }) => args.startsWith('qemu-nbd')).map(({ pid }) => pid);

describe('backup storage: rbd: what a cluster does', () => {
  let cluster: TestCeph;
  let config: Record<string, unknown>;
  before(async () => {
    cluster = await startCeph({ rgw: false });
    config = await userOf(cluster);
  });
  after(() => cluster?.stop());
  afterEach('leaves no qemu-nbd, no key and nothing in the pool', async () => {
    assert.deepEqual(await nbds(), []);
    assert.deepEqual(await ourFolders(), []);
    assert.deepEqual(await filesOf(cluster), []);
  });

  it('tells no room where the cluster has no manager', async () => {
    await using store = await opened(config);
    assert.equal(await store.capacity?.(), null);
  });

  it('refuses a wrong key, and says nothing of it', async () => {
    const key = 'AQBLp2BlAAAAABAAAAAAAAAAAAAAAAAAAAAAAA==';
    await using store = await opened({ ...config, key });
    await assert.rejects(store.check(), (error: Error & { code?: string }) => {
      assert.equal(error.code, 'STORE_AUTH');
      assert.ok(!error.message.includes(key));
      return true;
    });
  });

  it('is out of reach where no monitor answers', async () => {
    await using store = await opened({ ...config, monitors: ['127.0.0.1:1'] });
    await assert.rejects(store.check(), { code: 'STORE_UNREACHABLE' });
  });

  it('keeps its key in a file that only its user can read, while bytes move', async () => {
    await using store = await opened(config);
    const source = gatedSource(4 * PART, 2 * PART);
    const upload = publishImage(store, image(), source, calm);
    await Promise.race([source.gate.reached(), upload]);
    for (const { args } of await children()) assert.ok(!args.includes(config['key'] as string), args);
    const [folder] = await ourFolders();
    assert.equal((await stat(join(tmpdir(), folder!, 'keyring'))).mode & 0o777, 0o600);
    source.gate.open();
    const { manifest } = await upload;
    await removeImage(store, manifest.id);
  });

  it('goes on with an upload whose qemu-nbd was killed', async () => {
    await using store = await opened(config);
    const source = gatedSource(8 * PART, 3 * PART);
    const upload = publishImage(store, image(), source, { ...calm, streams: 1 });
    await Promise.race([source.gate.reached(), upload]);
    const running = await nbds();
    assert.equal(running.length, 1);
    process.kill(running[0]!, 'SIGKILL');
    source.gate.open();
    const { manifest, summary } = await upload;
    assert.ok(summary.retries > 0);
    await fetchImage(store, manifest.id, gatedSink(8 * PART), calm);
    await removeImage(store, manifest.id);
  });

  it('says that the pool is full when it fills up in the middle, and keeps nothing of the upload', async function () {
    this.timeout(180_000); // a write to a full pool is given up after 15 s, several times
    await using full = await startCeph({ rgw: false });
    await using store = await opened(await userOf(full));
    await store.check(); // as connecting does: Ceph's list of images to be removed can only be begun where there is room
    const source = gatedSource(8 * PART, 2 * PART);
    const upload = publishImage(store, image(), source, calm);
    await Promise.race([source.gate.reached(), upload]);
    await makeFull(full);
    source.gate.open();
    await assert.rejects(upload, { code: 'STORE_FULL' });
    assert.deepEqual(await filesOf(full), []);
  });
});

describe('backup storage: rbd: with a manager', () => {
  it('tells the room of the pool, and that an image takes some', async () => {
    await using cluster = await startCeph({ rgw: false, mgr: true });
    await using store = await opened(await userOf(cluster));
    /** What the manager says once it has heard of the OSD, which is every second. */
    const told = async (enough: (room: { total: number; available: number }) => boolean) => {
      for (let asked = 0; asked < 60; asked++) {
        const room = await store.capacity?.();
        if (room && enough(room)) return room;
        await delay(500);
      }
      throw new Error('the manager did not tell within 30 s');
    };
    const empty = await told(room => room.available > 0);
    assert.ok(empty.available <= empty.total);
    const { manifest } = await publishImage(store, image(), gatedSource(16 * PART, 16 * PART), calm);
    const used = await told(room => room.total - room.available >= 16 * PART);
    assert.ok(used.available < empty.available);
    await removeImage(store, manifest.id);
  });
});
