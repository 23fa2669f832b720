import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PutObjectCommand } from '@aws-sdk/client-s3';
import { execa } from 'execa';
import type { BackupStore } from '../../agent/backup/driver.ts';
import { fetchImage, listImages, publishImage, removeImage } from '../../agent/backup/layout.ts';
import { openBackupStore } from '../../agent/backup/registry.ts';
import { CisternError, type ErrorCode } from '../../shared/errors.ts';
import { newId } from '../../shared/id.ts';
import { ourWorker } from '../bench/sftp/our-worker.ts';
import { testClock } from '../servers/clock.ts';
import { startSpoilingProxy, type SpoilingProxy } from '../servers/spoiling-proxy.ts';
import { makeImage, tempFolder } from './backup-image.ts';
import { S3_PART, startS3, type S3Target } from './backup-s3.ts';
import { gatedSink, gatedSource } from './gate-end.ts';

const signal = new AbortController().signal;
const calm = { streams: 2, stallSeconds: 30, signal, partSize: S3_PART };
const SIZE = 4 * S3_PART;
const image = (id: string) => ({ id, format: 'raw' as const, virtualSize: SIZE });
const coded =
  (code: ErrorCode, words = /./) =>
  (error: unknown) => {
    assert.ok(error instanceof CisternError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, words);
    assert.doesNotMatch(error.message, /secret\/of/);
    return true;
  };

describe('backup storage: s3, what befalls it alone', () => {
  let target: S3Target;
  let proxy: SpoilingProxy;
  let id: string;
  const opened: BackupStore[] = [];
  const open = async (more: Record<string, unknown>): Promise<BackupStore> => {
    const store = await openBackupStore({ id: newId(), type: 's3', config: { ...target.config, ...more } }, signal);
    opened.push(store);
    return store;
  };
  /** The storage as it is seen through the proxy. */
  const through = (): Promise<BackupStore> => open({ endpoint: `http://127.0.0.1:${proxy.port}` });
  const publish = (store: BackupStore) => publishImage(store, image(id), gatedSource(SIZE, 2 * SIZE), calm);
  const fetch = (store: BackupStore) => fetchImage(store, id, gatedSink(2 * SIZE), calm);

  before(async () => (target = await startS3()));
  after(() => target[Symbol.asyncDispose]());
  beforeEach(async () => {
    id = newId();
    proxy = await startSpoilingProxy(target.ceph.rgw.port);
  });
  afterEach(async () => {
    await proxy[Symbol.asyncDispose]();
    for (const store of opened.splice(0)) await store.close();
  });

  it('says that the keys are wrong, and which of the two', async () => {
    await assert.rejects((await open({ secretKey: 'secret/of+nobody' })).check(), coded('STORE_AUTH', /SignatureDoesNotMatch/));
    const stranger = await open({ accessKey: 'AKNOBODY' });
    await assert.rejects(stranger.check(), coded('STORE_AUTH', /InvalidAccessKeyId/));
    await assert.rejects(stranger.source(`images/${id}/image.raw`), coded('STORE_AUTH', /InvalidAccessKeyId/));
  });

  it('ends where an object becomes another one under the download', async () => {
    const store = await open({});
    await publish(store);
    const path = `images/${id}/image.raw`;
    const source = await store.source(path);
    await target.damage(path, 1);
    const changed: BackupStore = { ...store, source: () => Promise.resolve(source) };
    await assert.rejects(fetch(changed), coded('DIGEST_MISMATCH', /became another one/));
    await removeImage(store, id);
  });

  it('sends a part again that arrived with a flipped bit', async () => {
    const store = await through();
    proxy.flip = { way: 'up', at: S3_PART / 2 };
    const { summary } = await publish(store);
    assert.deepEqual([proxy.spoilt, summary.retries], [1, 1]);
    await fetch(store);
    await removeImage(store, id);
  });

  it('takes no part that arrives here with a flipped bit', async () => {
    const store = await through();
    await publish(store);
    proxy.flip = { way: 'down', at: S3_PART / 2 };
    await assert.rejects(fetch(store), coded('DIGEST_MISMATCH', /part \d of/));
    assert.equal(proxy.spoilt, 1);
    await removeImage(store, id);
  });

  it('goes on when the server asks for a pause', async () => {
    const store = await through();
    const says = 'HTTP/1.1 503 Slow Down\r\ncontent-length: 32\r\nconnection: close\r\n\r\n<Error><Code>SlowDown</Code>     ';
    proxy.answers.push({ head: /^PUT [^ ]*partNumber=2/, says: says.slice(0, -1), times: 2 });
    const { summary } = await publish(store);
    assert.equal(proxy.spoilt, 2);
    assert.ok(summary.retries >= 1);
    await fetch(store);
    await removeImage(store, id);
  });

  it('goes on where every third connection is cut in the middle', async () => {
    const store = await through();
    await publish(store);
    proxy.cutEvery = 3;
    proxy.cutAfter = S3_PART / 2;
    await fetch(store);
    await removeImage(store, id);
  });

  it('trusts an authority of the operator only where its certificate is given', async () => {
    await using folder = await tempFolder();
    const [key, cert] = [join(folder.path, 'key'), join(folder.path, 'cert')];
    const names = ['-subj', '/CN=s3', '-addext', 'subjectAltName=IP:127.0.0.1'];
    const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
    await execa('openssl', ['req', '-x509', ...kind, ...names, '-keyout', key, '-out', cert], { stdin: 'ignore' });
    const ca = await readFile(cert, 'utf8');
    await using tls = await startSpoilingProxy(target.ceph.rgw.port, { key: await readFile(key, 'utf8'), cert: ca });
    const endpoint = `https://127.0.0.1:${tls.port}`;
    await assert.rejects((await open({ endpoint })).check(), coded('STORE_CONFIG', /certificate.*"ca"/));
    const store = await open({ endpoint, ca });
    await store.check();
    await publish(store);
    await fetch(store);
    await removeImage(store, id);
  });

  for (const [words, hours] of [
    ['behind', -2],
    ['ahead', 2],
  ] as const)
    it(`works from a host whose clock is two hours ${words}`, async () => {
      await using folder = await tempFolder();
      const clock = testClock(join(folder.path, 'clock'));
      clock.shift(hours * 3600_000);
      const file = join(folder.path, 'image');
      await makeImage(file, SIZE);
      await using host = await ourWorker(folder.path, { type: 's3', config: target.config }, clock.env);
      await host.run({ what: 'upload', id, file });
      await host.run({ what: 'download', id, file: join(folder.path, 'arrived') });
      assert.deepEqual(await readFile(join(folder.path, 'arrived')), await readFile(file));
      await removeImage(await open({}), id);
    });

  it('tells the room that a quota of the bucket leaves, and nothing where there is none', async () => {
    assert.equal(await (await open({})).capacity?.(), null);
    await using small = await target.small();
    const store = await open({ ...small.config, prefix: '' });
    const empty = await store.capacity?.();
    assert.deepEqual(empty, { total: 4 * S3_PART, available: 4 * S3_PART });
    await store.write('images/some/thing', Buffer.alloc(S3_PART));
    assert.deepEqual(await store.capacity?.(), { total: 4 * S3_PART, available: 3 * S3_PART });
  });

  it('lists ten thousand images', async function () {
    this.timeout(180_000);
    const { bucket } = await target.bucket('many');
    const ids = Array.from({ length: 10_000 }, () => newId());
    const putting = ids.values();
    const put = async (): Promise<void> => {
      for (const one of putting)
        await target.client.send(new PutObjectCommand({ Bucket: bucket, Key: `images/${one}/manifest.json`, Body: 'x' }));
    };
    await Promise.all(Array.from({ length: 16 }, put));
    const store = await open({ bucket, prefix: '' });
    assert.deepEqual(await listImages(store), ids.sort());
  });

  it('keeps to its prefix, whatever characters are in it and beside it', async () => {
    const { bucket } = await target.bucket('odd');
    const prefix = `a b+c%2F/ü&?#=~'"<>`;
    const others = [prefix, `${prefix}x/images/${id}/manifest.json`, `other/\u0001/${id}`, `${prefix}/images/${id}x/image.raw`];
    for (const key of others) await target.client.send(new PutObjectCommand({ Bucket: bucket, Key: key, Body: 'x' }));
    const store = await open({ bucket, prefix });
    await store.check();
    await publish(store);
    assert.deepEqual(await listImages(store), [id]);
    await fetch(store);
    await removeImage(store, id);
    assert.deepEqual(await listImages(store), []);
    assert.deepEqual(await target.seen(bucket).files(), others.toSorted());
  });

  it('takes an image of zeros as an empty object', async () => {
    const store = await open({});
    const known = { ...calm, parts: Array<string>(SIZE / S3_PART).fill('zero') };
    const { summary } = await publishImage(store, image(id), gatedSource(SIZE, 0), known);
    assert.equal(summary.moved, 0);
    assert.equal((await store.source(`images/${id}/image.raw`)).size, 0);
    await fetch(store);
    await removeImage(store, id);
  });
});
