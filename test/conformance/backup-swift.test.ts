/** What only Swift can do wrong: keys and tokens, quotas, a proxy that dies, objects that change, certificates. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { createServer } from 'node:tls';
import { execa } from 'execa';
import type { BackupStore } from '../../agent/backup/driver.ts';
import { fetchImage, publishImage, removeImage } from '../../agent/backup/layout.ts';
import { openBackupStore } from '../../agent/backup/registry.ts';
import { CisternError, type ErrorCode } from '../../shared/errors.ts';
import { newId } from '../../shared/id.ts';
import { startSpoilingProxy } from '../servers/spoiling-proxy.ts';
import { startSwift, type TestSwift } from '../servers/swift.ts';
import { PART, tempFolder } from './backup-image.ts';
import { gatedSink, gatedSource } from './gate-end.ts';
import { listed, makeContainer, must } from './swift-target.ts';

const never = new AbortController().signal;
const calm = { streams: 2, stallSeconds: 50, signal: never, partSize: PART };
const image = (id = newId()) => ({ id, format: 'raw' as const, virtualSize: 0 });
const coded =
  (code: ErrorCode, words = /./) =>
  (error: unknown) => {
    assert.ok(error instanceof CisternError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, words);
    return true;
  };
async function opened(config: unknown): Promise<BackupStore & AsyncDisposable> {
  const store = await openBackupStore({ id: newId(), type: 'swift', config }, never);
  return { ...store, [Symbol.asyncDispose]: () => store.close() };
}

describe('backup storage: swift: what may go wrong', function () {
  this.timeout(180_000);
  let server: TestSwift;
  let container: string;
  let store: BackupStore & AsyncDisposable;
  let made = 0;
  before(async () => void (server = await startSwift()));
  after(() => server.stop());
  beforeEach(async () => {
    container = `box-${made++}`;
    await makeContainer(server, container);
    store = await opened({ ...server.config, container });
  });
  afterEach(() => store.close());

  it('is refused with a wrong key, and does not tell which', async () => {
    await using wrong = await opened({ ...server.config, container, key: 'not-the-word' });
    const isMute = (error: unknown): boolean => coded('STORE_AUTH')(error) && !(error as Error).message.includes('not-the-word');
    await assert.rejects(wrong.check(), isMute);
    await assert.rejects(publishImage(wrong, image(), gatedSource(PART, PART), calm), isMute);
  });

  it('says what is wrong where it is no such service, and where nobody answers', async () => {
    await using noService = await opened({ ...server.config, container, authUrl: `${server.url}/nothing/here` });
    await assert.rejects(noService.check(), coded('STORE_CONFIG', /such a service/));
    await using nobody = await opened({ ...server.config, container, authUrl: 'http://127.0.0.1:1/auth/v1.0' });
    await assert.rejects(nobody.check(), coded('STORE_UNREACHABLE', /REFUSED/));
  });

  it('tells the room that a quota leaves, and nothing where there is none', async () => {
    assert.equal(await store.capacity!(), null);
    await must(server, 'PUT', `/${container}/other`, { body: new Uint8Array(1000) });
    await must(server, 'POST', `/${container}`, { headers: { 'x-container-meta-quota-bytes': '5000' } });
    assert.deepEqual(await store.capacity!(), { total: 5000, available: 4000 });
  });

  it('goes on with a new token when the old one is void in the middle, up and down', async () => {
    const source = gatedSource(8 * PART, 2 * PART);
    const upload = publishImage(store, image(), source, calm);
    await Promise.race([source.gate.reached(), upload]);
    await server.forget();
    source.gate.open();
    const { manifest } = await upload;
    const sink = gatedSink(2 * PART);
    const download = fetchImage(store, manifest.id, sink, calm);
    await Promise.race([sink.gate.reached(), download]);
    await server.forget();
    sink.gate.open();
    await download;
    assert.deepEqual(sink.ended, ['publish']);
  });

  it('says that it is full when a quota is reached in the middle, and keeps nothing', async () => {
    await must(server, 'POST', `/${container}`, { headers: { 'x-container-meta-quota-bytes': String(6 * PART) } });
    const source = gatedSource(8 * PART, 2 * PART);
    const upload = publishImage(store, image(), source, calm);
    await Promise.race([source.gate.reached(), upload]);
    await must(server, 'PUT', `/${container}/others`, { body: new Uint8Array(3.5 * PART) });
    await server.forget(); // how much is used
    source.gate.open();
    await assert.rejects(upload, coded('STORE_FULL', /413/));
    assert.deepEqual(
      (await listed(server, container, '')).map(({ name }) => name),
      ['others'],
    );
  });

  for (const status of ['498 Rate Limited', '429 Too Many Requests', '503 Service Unavailable'])
    it(`goes on when the server asks for a pause by ${status.slice(0, 3)}, up and down`, async () => {
      await using busy = await startSpoilingProxy(Number(new URL(server.url).port));
      await using slow = await opened({ ...server.config, container, endpoint: `http://127.0.0.1:${busy.port}/v1/AUTH_test` });
      const says = `HTTP/1.1 ${status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n`;
      busy.answers.push(
        { head: /^PUT [^ ]*image\.raw\.parts/, says, times: 2 },
        { head: /^GET [^ ]*image\.raw /, says, times: 1 },
      );
      const { manifest, summary } = await publishImage(slow, image(), gatedSource(8 * PART, 16 * PART), calm);
      assert.ok(summary.retries >= 1, `${summary.retries} streams were begun anew`);
      await fetchImage(slow, manifest.id, gatedSink(16 * PART), calm);
      assert.equal(busy.spoilt, 3);
    });

  it('goes on when the proxy was killed in the middle and is there again', async () => {
    const source = gatedSource(8 * PART, 2 * PART);
    const upload = publishImage(store, image(), source, calm);
    await Promise.race([source.gate.reached(), upload]);
    await server.killProxy();
    await server.startProxy();
    source.gate.open();
    const { manifest } = await upload;
    await fetchImage(store, manifest.id, gatedSink(8 * PART), calm);
  });

  it('gives up when the proxy stays away, and goes on from what is there when it is back', async () => {
    const source = gatedSource(8 * PART, 3 * PART);
    const one = image();
    const upload = publishImage(store, one, source, calm);
    await Promise.race([source.gate.reached(), upload]);
    await server.killProxy();
    source.gate.open();
    await assert.rejects(upload, coded('STORE_UNREACHABLE', /REFUSED/));
    await server.startProxy();
    const { summary } = await publishImage(store, one, gatedSource(8 * PART, 8 * PART), calm);
    assert.ok(summary.resumed >= PART, `${summary.resumed} bytes were there already`);
    assert.equal(summary.moved, 8 * PART - summary.resumed);
  });

  it('finds that the object was changed under a download', async () => {
    const { manifest } = await publishImage(store, image(), gatedSource(8 * PART, 8 * PART), calm);
    const sink = gatedSink(2 * PART);
    const download = fetchImage(store, manifest.id, sink, { ...calm, streams: 1 });
    await Promise.race([sink.gate.reached(), download]);
    await must(server, 'PUT', `/${container}/images/${manifest.id}/image.raw`, { body: new Uint8Array(8 * PART) });
    sink.gate.open();
    await assert.rejects(download, coded('DIGEST_MISMATCH', /changed meanwhile/));
    assert.deepEqual(sink.ended, ['abort']);
  });

  it('removes its own and nothing beside it, with names of every kind around', async () => {
    const odd = ['images', 'images.parts/x', 'images/ü €?#%&+', 'images/%2e%2e/x', 'other/a b'];
    for (const name of odd) {
      await must(server, 'PUT', `/${container}/${name.split('/').map(encodeURIComponent).join('/')}`, { body: 'x' });
    }
    const { manifest } = await publishImage(store, image(), gatedSource(3 * PART, 3 * PART), calm);
    assert.deepEqual((await store.list('images')).sort(), ['%2e%2e', manifest.id, 'ü €?#%&+'].sort());
    await removeImage(store, manifest.id);
    assert.deepEqual((await listed(server, container, '')).map(({ name }) => name).sort(), odd.sort());
  });

  it('trusts a certificate of a private authority only when it is told to, and sends no token in the clear', async () => {
    await using front = await tlsFront(server);
    const config = { ...server.config, container, authUrl: `${front.url}/auth/v1.0` };
    await using stranger = await opened(config);
    await assert.rejects(stranger.check(), coded('STORE_CONFIG', /certificate is not trusted.*"ca"/));
    await using clear = await opened({ ...config, ca: front.ca });
    await assert.rejects(clear.check(), coded('STORE_CONFIG', /not be encrypted.*"endpoint"/));
    await using safe = await opened({ ...config, ca: front.ca, endpoint: `${front.url}/v1/AUTH_test` });
    await safe.check();
    const { manifest } = await publishImage(safe, image(), gatedSource(3 * PART, 3 * PART), calm);
    await fetchImage(safe, manifest.id, gatedSink(3 * PART), calm);
  });
});

describe('backup storage: swift: with Keystone', function () {
  this.timeout(300_000);
  let server: TestSwift;
  before(async () => void (server = await startSwift({ keystone: true })));
  after(() => server.stop());

  it('comes in with a password, and keeps and gives back an image', async () => {
    await must(server, 'PUT', '/box');
    await using store = await opened({ ...server.config, container: 'box', region: 'RegionOne' });
    await store.check();
    const { manifest } = await publishImage(store, image(), gatedSource(4 * PART, 4 * PART), calm);
    await fetchImage(store, manifest.id, gatedSink(4 * PART), calm);
    await removeImage(store, manifest.id);
    assert.deepEqual(await store.list('images'), []);
  });

  it('says which of password, project and region is wrong', async () => {
    const config = { ...server.config, container: 'box' };
    const isMute = (error: unknown): boolean => coded('STORE_AUTH')(error) && !(error as Error).message.includes('not-the-word');
    for (const wrong of [{ key: 'not-the-word' }, { project: 'another' }, { userDomain: 'Elsewhere' }]) {
      await using store = await opened({ ...config, ...wrong });
      await assert.rejects(store.check(), isMute);
    }
    await using far = await opened({ ...config, region: 'Atlantis' });
    await assert.rejects(far.check(), coded('STORE_CONFIG', /RegionOne/));
    await assert.rejects(opened({ ...config, project: undefined }), coded('STORE_CONFIG', /project/));
  });
});

/** TLS before the proxy, with a certificate that only its own authority vouches for. */
async function tlsFront(server: TestSwift): Promise<AsyncDisposable & { url: string; ca: string }> {
  await using folder = await tempFolder();
  const [key, cert] = ['key.pem', 'cert.pem'].map(name => join(folder.path, name)) as [string, string];
  const names = ['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1'];
  const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
  await execa('openssl', ['req', '-x509', ...kind, '-keyout', key, '-out', cert, ...names]);
  const ca = await readFile(cert, 'utf8');
  const sockets = new Set<{ destroy(): void }>();
  const front = createServer({ key: await readFile(key), cert: ca }, socket => {
    const behind = connect(Number(new URL(server.url).port), '127.0.0.1');
    for (const [one, other] of [
      [socket, behind],
      [behind, socket],
    ] as const) {
      sockets.add(one);
      one.on('error', () => other.destroy()).on('close', () => (sockets.delete(one), other.destroy()));
      one.pipe(other);
    }
  });
  front.on('tlsClientError', () => undefined); // who does not trust it says so
  await new Promise<void>(done => front.listen(0, '127.0.0.1', done));
  return {
    url: `https://127.0.0.1:${(front.address() as { port: number }).port}`,
    ca,
    [Symbol.asyncDispose]: async () => {
      const closed = new Promise(done => front.close(done));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}
