import assert from 'node:assert/strict';
import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sql } from 'kysely';
import { backUp } from '../../controller/db/backups.ts';
import { type Database, openDatabase } from '../../controller/db/database.ts';
import { openSecrets, proveKey } from '../../controller/secrets.ts';
import { CisternError, type ErrorCode } from '../../shared/errors.ts';
import { newId } from '../../shared/id.ts';
import { flipBit, picker } from './damage.ts';

const PAGE = 4096;
const fails =
  (code: ErrorCode, detail = /./) =>
  (error: unknown) => {
    assert.ok(error instanceof CisternError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, detail);
    return true;
  };

describe("damage to the controller's database", () => {
  let folder: string;
  let file: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'cistern-database-'));
    file = join(folder, 'cistern.db');
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  const add = (db: Database, name: string) =>
    db.write(trx => trx.insertInto('clusters').values({ id: newId(), name, created_at: 'now' }).execute());
  const names = async (db: Database) => (await db.read.selectFrom('clusters').select('name').execute()).map(row => row.name).sort(); // prettier-ignore

  /** Closed as a controller closes it: with 1200 clusters, on some 60 pages. */
  async function make(count = 1200): Promise<Buffer> {
    const db = await openDatabase(file);
    await Promise.all(Array.from({ length: count }, (_, i) => add(db, `cluster-${i}`)));
    await db.close();
    return readFileSync(file);
  }

  /** A database of these bytes as the only thing there: as after a crash, with a log where one is given. */
  function put(bytes: Buffer, wal?: Buffer): void {
    for (const name of readdirSync(folder)) rmSync(join(folder, name), { recursive: true });
    writeFileSync(file, bytes);
    if (wal) writeFileSync(`${file}-wal`, wal);
  }

  async function outcome(): Promise<'damaged' | string[]> {
    try {
      const db = await openDatabase(file);
      const found = await names(db);
      await db.close();
      return found;
    } catch (error) {
      fails('DATABASE_DAMAGED')(error);
      return 'damaged';
    }
  }

  it('is found in every bit that changed while the controller was stopped: 150 places', async () => {
    const good = await make(200);
    const { atime, mtime } = statSync(file);
    const pick = picker('closed');
    for (let i = 0; i < 150; i++) {
      writeFileSync(file, flipBit(good, pick(good.length), pick(8)));
      // bits that rot leave the time as it was
      utimesSync(file, atime, mtime);
      writeFileSync(`${file}.closed`, readFileSync(`${file}.closed`, 'utf8').replace(/"mtime":"\d+"/, `"mtime":"${statSync(file, { bigint: true }).mtimeNs}"`)); // prettier-ignore
      await assert.rejects(openDatabase(file), fails('DATABASE_DAMAGED', /changed since the controller closed it|header/));
    }
    writeFileSync(file, good);
    assert.equal(((await outcome()) as string[]).length, 200);
  }).timeout(60_000);

  it('is found in the header, and at the head of each page of tables and indexes, also after a crash', async () => {
    const good = await make();
    for (let at = 0; at < good.length; at += PAGE) {
      // a page of another kind than a tree expects; nothing hangs on one without cells
      put(flipBit(good, at, 3));
      const cells = at === 0 ? 1 : good.readUInt16BE(at + 3);
      if (cells > 0) assert.equal(await outcome(), 'damaged', `page ${at / PAGE}`);
    }
  }).timeout(60_000);

  it('is found in an index that says something else than its table', async () => {
    const good = await make();
    const all = (await outcome()) as string[];
    const places: number[] = [];
    for (let at = good.indexOf('cluster-77'); at >= 0; at = good.indexOf('cluster-77', at + 1)) places.push(at);
    let found = 0;
    for (const at of places) {
      put(flipBit(good, at + 2, 0));
      const seen = await outcome();
      // what is left of a page that was split is no part of it any more
      if (seen === 'damaged') found++;
      else assert.ok(seen.join() === all.join(), `byte ${at}: a wrong name came out`);
    }
    // eleven names, in the table and in the index that keeps them unique
    assert.ok(found >= 22, `${found} found`);
  }).timeout(60_000);

  it('costs no commit in silence where it is in the log: 200 places', async () => {
    const db = await openDatabase(file);
    for (let i = 0; i < 25; i++) await add(db, `c${String(i).padStart(2, '0')}`);
    const [base, wal] = [readFileSync(file), readFileSync(`${file}-wal`)];
    await db.close();
    const all = Array.from({ length: 25 }, (_, i) => `c${String(i).padStart(2, '0')}`);
    put(base, wal);
    assert.deepEqual(await outcome(), all);
    const pick = picker('log');
    let found = 0;
    for (let i = 0; i < 200; i++) {
      const at = pick(wal.length);
      put(base, flipBit(wal, at, pick(8)));
      const seen = await outcome();
      if (seen === 'damaged') found++;
      // the last commit may be one that the power cut short
      else assert.deepEqual([seen, all.slice(0, seen.length)], [all.slice(0, seen.length), seen.length >= 24 ? seen : 'lost commits'], `byte ${at} of ${wal.length}`); // prettier-ignore
    }
    assert.ok(found > 150, `${found} found`);
  }).timeout(120_000);

  it('is not seen in a log that the power cut: each length of it opens, with what was whole', async () => {
    const db = await openDatabase(file);
    for (let i = 0; i < 5; i++) await add(db, `c${i}`);
    const [base, wal] = [readFileSync(file), readFileSync(`${file}-wal`)];
    await db.close();
    const pick = picker('cut');
    for (let i = 0; i < 40; i++) {
      put(base, wal.subarray(0, pick(wal.length)));
      // where the schema itself was cut off, it is made again
      assert.notEqual(await outcome(), 'damaged');
    }
  }).timeout(60_000);

  it('that removes or empties the file does not make a new, empty one', async () => {
    await make(3);
    const note = readFileSync(`${file}.closed`);
    writeFileSync(file, '');
    await assert.rejects(openDatabase(file), fails('DATABASE_DAMAGED', /empty or not there/));
    rmSync(file);
    await assert.rejects(openDatabase(file), fails('DATABASE_DAMAGED', /empty or not there/));
    assert.equal(existsSync(file), false);
    rmSync(`${file}.closed`);
    assert.ok(note.length > 0);
    await (await openDatabase(file)).close();
  });

  it('that shows while it is in use is told once, and from then on nothing is written', async () => {
    const good = await make();
    const told: CisternError[] = [];
    const db = await openDatabase(file, { onDamage: error => void told.push(error) });
    await add(db, 'before');
    await sql`pragma wal_checkpoint(truncate)`.execute(db.read);
    const bytes = Buffer.from(good);
    for (let at = 20 * PAGE; at < bytes.length; at += PAGE) bytes.fill(0xff, at, at + PAGE);
    writeFileSync(file, bytes, { flag: 'r+' });
    await sql`pragma shrink_memory`.execute(db.read);
    await assert.rejects(names(db), fails('DATABASE_DAMAGED', /malformed/));
    await assert.rejects(add(db, 'after'), fails('DATABASE_DAMAGED'));
    await assert.rejects(backUp(db), fails('DATABASE_DAMAGED'));
    assert.equal(told.length, 1);
    assert.deepEqual(await db.read.selectFrom('hosts').selectAll().execute(), [], 'what can be read is');
    await db.close();
    assert.equal(existsSync(`${file}.closed`), false);
    await assert.rejects(openDatabase(file), fails('DATABASE_DAMAGED'));
  });

  it('is what backups are for: made in use, checked, for the owner alone, seven at most, and good to start from', async () => {
    const db = await openDatabase(file);
    for (let day = 1; day <= 9; day++) {
      const writing = Array.from({ length: 20 }, (_, i) => add(db, `day-${day}-${i}`));
      await backUp(db, new Date(Date.UTC(2026, 0, day)));
      await Promise.all(writing);
    }
    const folderOf = join(folder, 'backups');
    assert.deepEqual(
      readdirSync(folderOf),
      Array.from({ length: 7 }, (_, i) => `cistern-2026010${i + 3}T000000Z.db`),
    );
    const last = join(folderOf, 'cistern-20260109T000000Z.db');
    assert.deepEqual([statSync(last).mode & 0o777, statSync(folderOf).mode & 0o777], [0o600, 0o700]);
    await db.close();
    writeFileSync(file, 'rubbish');
    await assert.rejects(openDatabase(file), fails('DATABASE_DAMAGED'));
    copyFileSync(last, file);
    assert.ok(((await outcome()) as string[]).filter(name => name.startsWith('day-8-')).length === 20);
  }).timeout(60_000);

  it('of the key is found at the start: gone, cut, or another one', async () => {
    const secrets = openSecrets(folder, { mayMake: true });
    const db = await openDatabase(file);
    await db.write(async trx => {
      await trx.insertInto('clusters').values({ id: 'c', name: 'c', created_at: 'now' }).execute();
      const host = { id: 'h', name: 'h', cluster_id: 'c', url: 'u', token_sealed: secrets.seal('token', 'hosts.token_sealed/h'), report_hash: 'r', report_sealed: 's', status: 'connected', state: 'enabled', reason: null, facts_json: null, last_seen_at: null, created_at: 'now' } as const; // prettier-ignore
      await trx.insertInto('hosts').values(host).execute();
    });
    const path = join(folder, 'secret.key');
    const good = readFileSync(path);
    await proveKey(db, openSecrets(folder, { mayMake: false }));
    for (let at = 0; at < 42; at++) {
      writeFileSync(path, flipBit(good, at, at % 7));
      await assert.rejects(
        async () => proveKey(db, openSecrets(folder, { mayMake: false })),
        fails('KEY_DAMAGED', /secret\.key/),
      );
    }
    rmSync(path);
    assert.throws(() => openSecrets(folder, { mayMake: false }), fails('KEY_DAMAGED', /is not there/));
    assert.equal(existsSync(path), false, 'no other key is made in its place');
    await db.close();
  });
});
