/** What only an SSH server can do wrong: keys, connections that die or freeze, and secrets that must not show. */
import assert from 'node:assert/strict';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import type { BackupStore } from '../../agent/backup/driver.ts';
import { fetchImage, publishImage } from '../../agent/backup/layout.ts';
import { backupDriverFacts, openBackupStore } from '../../agent/backup/registry.ts';
import { CisternError, type ErrorCode } from '../../shared/errors.ts';
import { newId } from '../../shared/id.ts';
import { descendants } from '../servers/processes.ts';
import { startSshd, type TestSshd } from '../servers/sshd.ts';
import { filesBelow, PART, sinkInto, tempFolder } from './backup-image.ts';
import { gatedSink, gatedSource } from './gate-end.ts';

const never = new AbortController().signal;
const calm = { streams: 2, stallSeconds: 20, signal: never, partSize: PART };
const image = (id = newId()) => ({ id, format: 'raw' as const, virtualSize: 0 });
const coded =
  (code: ErrorCode, words = /./) =>
  (error: unknown) => {
    assert.ok(error instanceof CisternError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, words);
    return true;
  };

const configOf = (sshd: TestSshd, changed: Record<string, unknown> = {}): Record<string, unknown> => {
  const { host, port, user, path, hostKey, privateKey } = sshd;
  return { host, port, user, path, hostKey, privateKey, ...changed };
};
async function opened(config: unknown): Promise<BackupStore & AsyncDisposable> {
  const store = await openBackupStore({ id: newId(), type: 'sftp', config }, never);
  return { ...store, [Symbol.asyncDispose]: () => store.close() };
}
const newKey = async (folder: string, passphrase: string): Promise<{ privateKey: string; publicKey: string }> => {
  const file = join(folder, 'key');
  await execa('ssh-keygen', ['-q', '-t', 'ed25519', '-N', passphrase, '-C', '', '-f', file]);
  return { privateKey: await readFile(file, 'utf8'), publicKey: (await readFile(`${file}.pub`, 'utf8')).trim() };
};
const ourFolders = async (): Promise<string[]> => (await readdir(tmpdir())).filter(name => name.startsWith('cistern-ssh-'));
const ourSsh = async (): Promise<number> => {
  const lines = await Promise.all(
    (await descendants(process.pid)).map(pid => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')),
  );
  return lines.filter(line => line.startsWith('ssh\0')).length;
};

describe('backup storage: sftp: who is who', () => {
  let sshd: TestSshd;
  before(async () => void (sshd = await startSshd({ password: true })));
  after(() => sshd.stop());
  afterEach('leaves no ssh and no key file behind', async () => {
    assert.equal(await ourSsh(), 0);
    assert.deepEqual(await ourFolders(), []);
  });

  it('comes in with a password, for control and for bytes, and shows it to nobody', async () => {
    const { password } = sshd;
    await using store = await opened(configOf(sshd, { privateKey: undefined, password }));
    await store.check();
    const source = gatedSource(8 * PART, 2 * PART);
    const upload = publishImage(store, image(), source, calm);
    await Promise.race([source.gate.reached(), upload]);
    for (const pid of await descendants(process.pid)) {
      const args = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
      assert.ok(!args.includes(password!), args);
    }
    source.gate.open();
    const { manifest } = await upload;
    await fetchImage(store, manifest.id, gatedSink(8 * PART), calm);
  });

  it('is refused with a wrong password, and does not tell which', async () => {
    await using store = await opened(configOf(sshd, { privateKey: undefined, password: 'not-the-word' }));
    await assert.rejects(
      store.check(),
      error => coded('STORE_AUTH')(error) && !(error as Error).message.includes('not-the-word'),
    );
  });

  it('comes in with a key that has a passphrase', async () => {
    await using folder = await tempFolder();
    const { privateKey, publicKey } = await newKey(folder.path, 'open sesame');
    const authorized = `${sshd.keyFile}.pub`;
    await writeFile(authorized, `${(await readFile(authorized, 'utf8')).trim()}\n${publicKey}\n`);
    await using store = await opened(configOf(sshd, { privateKey, passphrase: 'open sesame' }));
    await store.check();
    await using wrong = await opened(configOf(sshd, { privateKey, passphrase: 'open barley' }));
    await assert.rejects(wrong.check(), coded('STORE_AUTH'));
  });

  it('is refused with a key that the server does not know', async () => {
    await using folder = await tempFolder();
    const { privateKey } = await newKey(folder.path, '');
    await using store = await opened(configOf(sshd, { privateKey }));
    await assert.rejects(store.check(), coded('STORE_AUTH', new RegExp(`${sshd.user}@127`)));
  });

  it('refuses a server with another host key', async () => {
    await using folder = await tempFolder();
    const { publicKey } = await newKey(folder.path, '');
    await using store = await opened(configOf(sshd, { hostKey: publicKey }));
    await assert.rejects(store.read('images/x', 1), coded('STORE_HOST_KEY'));
  });

  it('refuses another host key for the bytes too, not only for control', async () => {
    const { openChannel } = await import('../../agent/backup/sftp/channel.ts');
    const { SftpConfig } = await import('../../agent/backup/sftp/config.ts');
    await using folder = await tempFolder();
    const { publicKey, privateKey } = await newKey(folder.path, '');
    const wrongHost = SftpConfig.parse(configOf(sshd, { hostKey: publicKey }));
    await assert.rejects(openChannel(wrongHost, never), coded('STORE_HOST_KEY'));
    await assert.rejects(openChannel(SftpConfig.parse(configOf(sshd, { privateKey })), never), coded('STORE_AUTH'));
    await assert.rejects(
      openChannel(SftpConfig.parse(configOf(sshd, { port: 1 })), never),
      coded('STORE_UNREACHABLE', /refused/),
    );
    const cancelled = openChannel(SftpConfig.parse(configOf(sshd)), AbortSignal.abort(new CisternError('CANCELLED', 'enough')));
    await assert.rejects(cancelled, coded('CANCELLED'));
  });

  it('wants a key or a password, and a host key', async () => {
    await assert.rejects(opened(configOf(sshd, { privateKey: undefined })), coded('STORE_CONFIG', /privateKey or password/));
    await assert.rejects(opened(configOf(sshd, { hostKey: undefined })), coded('STORE_CONFIG', /hostKey/));
    await assert.rejects(opened(configOf(sshd, { host: '-oProxyCommand=x' })), coded('STORE_CONFIG', /host/));
  });

  it('marks its secrets, so that nobody shows them', () => {
    const facts = backupDriverFacts().find(driver => driver.type === 'sftp')!;
    const properties = facts.config['properties'] as Record<string, { writeOnly?: boolean; description?: string }>;
    const secret = Object.keys(properties).filter(name => properties[name]!.writeOnly);
    assert.deepEqual(secret, ['privateKey', 'passphrase', 'password']);
    assert.ok(Object.values(properties).every(property => property.description));
  });
});

describe('backup storage: sftp: a server that dies', () => {
  let sshd: TestSshd;
  let store: BackupStore & AsyncDisposable;
  beforeEach(async () => {
    sshd = await startSshd();
    store = await opened(configOf(sshd));
  });
  afterEach(async () => {
    await sshd.freeze(false);
    await sshd.stop();
    await store.close();
    assert.equal(await ourSsh(), 0);
  });

  it('fails an upload when the server is killed in the middle', async () => {
    const source = gatedSource(16 * PART, 4 * PART);
    const upload = publishImage(store, image(), source, calm);
    await Promise.race([source.gate.reached(), upload]);
    await sshd.kill();
    source.gate.open();
    await assert.rejects(upload, coded('STORE_UNREACHABLE'));
  });

  it('fails a download when the server is killed in the middle, and publishes nothing', async () => {
    const { manifest } = await publishImage(store, image(), gatedSource(64 * PART, 64 * PART), calm);
    const sink = gatedSink(2 * PART);
    const download = fetchImage(store, manifest.id, sink, calm);
    await Promise.race([sink.gate.reached(), download]);
    await sshd.kill();
    sink.gate.open();
    await assert.rejects(download, coded('STORE_UNREACHABLE', /refused/)); // as the last attempt found it
    assert.deepEqual(sink.ended, ['abort']);
  });

  it('gives a download up when the server freezes, though its thread hangs in a read', async () => {
    const { manifest } = await publishImage(store, image(), gatedSource(64 * PART, 64 * PART), calm);
    const sink = gatedSink(2 * PART);
    const download = fetchImage(store, manifest.id, sink, { ...calm, stallSeconds: 6 });
    await Promise.race([sink.gate.reached(), download]);
    await sshd.freeze();
    sink.gate.open();
    // that it ends at all says that the ssh was ended which its thread waits for
    await assert.rejects(download, coded('TRANSFER_STALLED', /no byte moved for 6 s/));
    assert.deepEqual(sink.ended, ['abort']);
  });

  it('comes back by itself once the control connection was lost', async () => {
    await store.check();
    for (const pid of await sshd.connections()) process.kill(pid, 'SIGKILL');
    await store.check().catch(coded('STORE_UNREACHABLE'));
    await store.check();
  });

  it('downloads into a file what it uploaded from a store to a store', async () => {
    await using folder = await tempFolder();
    const { manifest } = await publishImage(store, image(), gatedSource(4 * PART, 4 * PART), calm);
    const copy = image();
    await publishImage(store, copy, await store.source(`images/${manifest.id}/image.raw`), calm);
    await fetchImage(store, copy.id, m => sinkInto(folder.path, m.size), calm);
    assert.deepEqual(await filesBelow(folder.path), ['arrived']);
  });
});
