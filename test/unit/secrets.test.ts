import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { openSecrets, proveKey } from '../../controller/secrets.ts';
import { openDatabase } from '../../controller/db/database.ts';
import { CisternError } from '../../shared/errors.ts';
import { readOrCreateToken } from '../../shared/http/auth.ts';
import { secret, secretUrl, shownOf } from '../../shared/secret.ts';

const FRESH = { mayMake: true };

const refused =
  (detail: RegExp, code = 'SECRET_FILE') =>
  (error: unknown): boolean => {
    assert.ok(error instanceof CisternError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, detail);
    return true;
  };

describe('secrets at rest', () => {
  let folder: string;
  beforeEach(() => void (folder = mkdtempSync(join(tmpdir(), 'cistern-secrets-'))));
  afterEach(() => rmSync(folder, { recursive: true }));

  it('a sealed value opens where it stands and nowhere else, and a changed one nowhere', () => {
    const secrets = openSecrets(folder, FRESH);
    const sealed = secrets.seal({ password: 'hunter2' }, 'backup_storages.config_sealed/1');
    assert.ok(!Buffer.from(sealed, 'base64').includes('hunter2'));
    assert.deepEqual(secrets.open(sealed, 'backup_storages.config_sealed/1'), { password: 'hunter2' });
    for (const place of ['backup_storages.config_sealed/2', 'primary_storages.config_sealed/1'] as const)
      assert.throws(() => secrets.open(sealed, place), new RegExp(`opening ${place}`));
    const bytes = Buffer.from(sealed, 'base64');
    for (let i = 0; i < bytes.length; i++) {
      const changed = Buffer.from(bytes);
      changed[i]! ^= 1;
      assert.throws(() => secrets.open(changed.toString('base64'), 'backup_storages.config_sealed/1'), /was changed/);
    }
    assert.throws(() => secrets.open(bytes.subarray(0, 20).toString('base64'), 'backup_storages.config_sealed/1'), /was changed/);
  });

  it('the key is made for its owner alone, kept over restarts, and refused where others can use it', () => {
    const place = 'hosts.token_sealed/1';
    const sealed = openSecrets(folder, FRESH).seal('x', place);
    const key = join(folder, 'secret.key');
    assert.equal(statSync(key).mode & 0o777, 0o600);
    assert.equal(openSecrets(folder, FRESH).open(sealed, place), 'x');
    for (const mode of [0o640, 0o604, 0o620, 0o601]) {
      chmodSync(key, mode);
      assert.throws(() => openSecrets(folder, FRESH), refused(new RegExp(`its mode is ${mode.toString(8)}`)));
    }
    chmodSync(key, 0o600);
    writeFileSync(key, 'c2hvcnQ=');
    assert.throws(() => openSecrets(folder, FRESH), refused(/32 bytes/, 'KEY_DAMAGED'));
    rmSync(key);
    mkdirSync(key);
    assert.throws(() => openSecrets(folder, FRESH), refused(/not a plain file/));
  });

  it('no new key is made beside a database that was sealed with another, and a wrong one is found at the start', async () => {
    const first = openSecrets(folder, FRESH);
    const db = await openDatabase(join(folder, 'cistern.db'));
    const made = { name: 'h', cluster_id: 'c', url: 'http://h', report_hash: '', report_sealed: '', status: 'connecting', state: 'enabled', reason: null, facts_json: null, last_seen_at: null, created_at: '' } as const; // prettier-ignore
    await db.write(async trx => {
      await trx.insertInto('clusters').values({ id: 'c', name: 'c', created_at: '' }).execute();
      const token_sealed = first.seal('t', 'hosts.token_sealed/1');
      await trx
        .insertInto('hosts')
        .values({ ...made, id: '1', token_sealed })
        .execute();
    });
    await proveKey(db, first);
    rmSync(join(folder, 'secret.key'));
    assert.throws(() => openSecrets(folder, { mayMake: false }), refused(/is not there, but settings/, 'KEY_DAMAGED'));
    mkdirSync(join(folder, 'other'));
    await assert.rejects(
      proveKey(db, openSecrets(join(folder, 'other'), FRESH)),
      refused(/not the one that it was sealed with/, 'KEY_DAMAGED'),
    );
    await db.close();
  });

  it('a systemd credential goes before the file', () => {
    const place = 'hosts.token_sealed/1';
    const sealed = openSecrets(folder, FRESH).seal('x', place);
    const credentials = join(folder, 'credentials');
    mkdirSync(credentials);
    writeFileSync(join(credentials, 'secret.key'), readFileSync(join(folder, 'secret.key')), { mode: 0o440 });
    rmSync(join(folder, 'secret.key'));
    assert.equal(openSecrets(folder, { mayMake: false, credentials }).open(sealed, place), 'x');
  });

  it('a token file that others can read is refused, a missing one made', () => {
    const file = join(folder, 'token');
    const { token, created } = readOrCreateToken(file);
    assert.ok(created && token.length >= 43);
    assert.deepEqual(readOrCreateToken(file), { token, created: false });
    chmodSync(file, 0o644);
    assert.throws(() => readOrCreateToken(file), refused(/its mode is 644/));
    chmodSync(file, 0o600);
    writeFileSync(file, 'short');
    assert.throws(() => readOrCreateToken(file), refused(/less than 16/));
  });
});

describe('what is shown of a request', () => {
  it('nothing of what its schema marks as secret, however deep, and of a URL neither user, query nor fragment', () => {
    const schema = z.strictObject({
      name: z.string(),
      token: secret(z.string().describe('a token')),
      config: secret(z.record(z.string(), z.unknown())).default({}),
      more: z.array(z.strictObject({ key: secret(z.string()).optional(), n: z.int() })),
      source: z.discriminatedUnion('type', [
        z.strictObject({ type: z.literal('url'), url: secretUrl(z.url()) }),
        z.strictObject({ type: z.literal('file'), path: z.string() }),
      ]),
    });
    const given = {
      name: 'n',
      token: 'CANARY',
      config: { password: 'CANARY' },
      more: [{ key: 'CANARY', n: 1 }],
      source: { type: 'url', url: 'https://u:CANARY@h/x.qcow2?X-Amz-Signature=CANARY#CANARY' },
    };
    assert.deepEqual(shownOf(schema, given), {
      name: 'n',
      more: [{ n: 1 }],
      source: { type: 'url', url: 'https://h/x.qcow2?...' },
    });
    assert.equal((z.toJSONSchema(schema).properties as { token: { writeOnly?: boolean } }).token.writeOnly, true);
  });
});
