import assert from 'node:assert/strict';
import { mkdir, readFile, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { S3Client } from '@aws-sdk/client-s3';
import type { BackupStore } from '../../agent/backup/driver.ts';
import { copyImage, fetchImage, publishImage, readManifest, removeImage } from '../../agent/backup/layout.ts';
import { openBackupStore } from '../../agent/backup/registry.ts';
import { fileSource } from '../../agent/transfer/file-end.ts';
import { newId } from '../../shared/id.ts';
import { openDisk } from '../servers/disk.ts';
import { filesBelow, makeImage, sinkInto, tempFolder } from './backup-image.ts';
import { rgwClient, S3_PART, startS3, type S3Target } from './backup-s3.ts';

const never = new AbortController().signal;
const PART = S3_PART;
const SIZE = 6 * PART + 7;
const ZEROS = [1, 4];
const calm = { streams: 2, stallSeconds: 30, signal: never };
const noCheck = (): void => undefined;

/** A storage that is closed with the test. */
async function open(type: string, config: Record<string, unknown>): Promise<BackupStore & AsyncDisposable> {
  const store = await openBackupStore({ id: newId(), type, config }, never);
  return { ...store, [Symbol.asyncDispose]: () => store.close() };
}

describe('backup storages of one site', () => {
  let folder: Awaited<ReturnType<typeof tempFolder>>;
  let id: string;
  const image = (): string => join(folder.path, 'image');
  const publish = async (store: BackupStore): Promise<void> => {
    await makeImage(image(), SIZE, ZEROS, PART);
    const options = { ...calm, partSize: PART };
    await publishImage(store, { id, format: 'raw', virtualSize: SIZE }, await fileSource(image()), options);
  };
  const copy = (from: BackupStore, to: BackupStore, options: Partial<typeof calm & { progress: () => void }> = {}) =>
    copyImage(from, to, { id }, noCheck, { ...calm, ...options });
  const arrivesFrom = async (store: BackupStore): Promise<void> => {
    await fetchImage(store, id, m => sinkInto(folder.path, m.size), calm);
    assert.deepEqual(await readFile(join(folder.path, 'arrived')), await readFile(image()));
  };

  beforeEach(async () => {
    id = newId();
    folder = await tempFolder();
  });
  afterEach(() => folder[Symbol.asyncDispose]());

  describe('s3', () => {
    let target: S3Target;
    let shelf: Record<string, unknown> & { bucket: string };
    before(async () => {
      target = await startS3();
      shelf = await target.bucket('shelf');
    });
    after(() => target[Symbol.asyncDispose]());

    it('copies inside the service, zeros left out as they were, and reads the copy back', async () => {
      await using from = await open('s3', target.config);
      await using to = await open('s3', shelf);
      await publish(from);
      const { summary, manifest } = await copy(from, to);
      assert.deepEqual([summary.lane, summary.moved, summary.zeroParts], ['copy', 0, ZEROS.length]);
      assert.equal(manifest.packed, true);
      assert.equal(manifest.digest, (await readManifest(from, id)).digest);
      await removeImage(from, id);
      await arrivesFrom(to);
      await removeImage(to, id);
      assert.deepEqual([await target.files(), await target.seen('shelf').files()], [[], []]);
    });

    it('publishes no copy of what is damaged', async () => {
      await using from = await open('s3', target.config);
      await using to = await open('s3', shelf);
      await publish(from);
      await target.damage(`images/${id}/image.raw`, 2 * PART + 1);
      await assert.rejects(copy(from, to), { code: 'DIGEST_MISMATCH', message: /part 3 of/ });
      assert.deepEqual(await target.seen('shelf').files(), []);
      await removeImage(from, id);
    });

    it('goes through the host where the service would not', async () => {
      const { other, endpoint } = target.ceph.rgw;
      await using from = await open('s3', target.config);
      const { accessKey, secretKey } = other;
      const client: S3Client = rgwClient(endpoint, other);
      const { CreateBucketCommand } = await import('@aws-sdk/client-s3');
      await client.send(new CreateBucketCommand({ Bucket: 'theirs' }));
      client.destroy();
      await using to = await open('s3', { endpoint, bucket: 'theirs', accessKey, secretKey });
      await publish(from);
      const { summary } = await copy(from, to);
      assert.equal(summary.lane, 'ranges');
      await arrivesFrom(to);
      await removeImage(to, id);
      await removeImage(from, id);
    });

    it('keeps nothing of a copy that is cancelled', async () => {
      await using from = await open('s3', target.config);
      await using to = await open('s3', shelf);
      await publish(from);
      const cancel = new AbortController();
      await assert.rejects(copy(from, to, { signal: cancel.signal, progress: () => cancel.abort() }), { name: 'AbortError' });
      assert.deepEqual(await target.seen('shelf').files(), []);
      await removeImage(from, id);
    });
  });

  describe('dir', () => {
    const folders = async (root: string): Promise<[string, string]> => {
      const both = [join(root, 'from'), join(root, 'to')] as const;
      for (const one of both) await mkdir(one);
      return [...both];
    };

    it('shares the blocks of one file system that can', async () => {
      await using disk = await openDisk('xfs');
      const [a, b] = await folders(disk.path);
      await using from = await open('dir', { path: a });
      await using to = await open('dir', { path: b });
      await publish(from);
      const free = async (): Promise<number> => {
        const { bfree, bsize } = await statfs(disk.path);
        return bfree * bsize;
      };
      const before = await free();
      const { summary } = await copy(from, to);
      assert.deepEqual([summary.lane, summary.moved], ['copy', 0]);
      assert.ok(before - (await free()) < PART, 'the copy takes no room');
      await removeImage(from, id);
      await arrivesFrom(to);
    });

    it('goes through the host where the file system cannot', async () => {
      await using disk = await openDisk('ext4', { size: 128 });
      const [a, b] = await folders(disk.path);
      await using from = await open('dir', { path: a });
      await using to = await open('dir', { path: b });
      await publish(from);
      const { summary } = await copy(from, to);
      assert.equal(summary.lane, 'ranges');
      await arrivesFrom(to);
      await removeImage(to, id);
      assert.deepEqual(await filesBelow(b), []);
    });
  });
});
