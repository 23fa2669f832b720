import assert from 'node:assert/strict';
import { appendFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { checkedLine } from '../../agent/tasks/checked-line.ts';
import { readController, writeController } from '../../agent/tasks/controller-file.ts';
import { openJournal, type TaskRecord } from '../../agent/tasks/journal.ts';
import { newId } from '../../shared/id.ts';
import { damage, flipBit } from './damage.ts';

const silent = pino({ level: 'silent' });
const keyOf = (record: TaskRecord): string => JSON.stringify(Object.entries(record).sort());

describe('a damaged task journal', () => {
  let dir: string;
  let file: string;
  /** Every state in which a task was ever written. */
  let written: Set<string>;
  let whole: Buffer;

  beforeEach(async () => {
    dir = mkdtempSync(join(tmpdir(), 'cistern-journal-'));
    file = join(dir, 'tasks.jsonl');
    written = new Set();
    const journal = await openJournal(dir, silent, 1000);
    for (let i = 0; i < 12; i++) {
      const task: TaskRecord = { id: newId(), kind: 'cache.evict', fingerprint: 'f', poolId: newId(), state: 'queued', error: null, createdAt: new Date().toISOString(), finishedAt: null, acked: false, unswept: false }; // prettier-ignore
      const ended: TaskRecord = { ...task, state: 'succeeded', output: { freed: 1000 + i }, finishedAt: task.createdAt };
      for (const record of [task, ended]) {
        written.add(keyOf(record)).add(keyOf({ ...record, acked: true }));
        await journal.write(record).written;
      }
      await journal.write({ acked: [task.id] }).written;
    }
    await journal.close();
    whole = readFileSync(file);
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  const asides = () => readdirSync(dir).filter(name => name.startsWith('tasks.jsonl.damaged-'));
  async function load() {
    const journal = await openJournal(dir, silent, 1000);
    await journal.close();
    return journal.records.map(keyOf);
  }

  it('gives no task that was never so written, and keeps what it cannot read: 600 damages of six kinds', async () => {
    for (let seed = 0; seed < 600; seed++) {
      const { kind, bytes } = damage(whole, seed);
      writeFileSync(file, bytes);
      const records = await load();
      const invented = records.filter(record => !written.has(record));
      assert.deepEqual(invented, [], `seed ${seed}, ${kind}`);
      if (kind !== 'a cut end') {
        assert.ok(records.length >= 12 - 4 || kind === 'a tail of zeros', `seed ${seed}, ${kind}: ${records.length} are left`);
        assert.equal(asides().length, bytes.equals(whole) ? 0 : 1, `seed ${seed}, ${kind}`);
      }
      assert.deepEqual(await load(), records, `seed ${seed}, ${kind}: what was read once is there again`);
      for (const name of asides()) rmSync(join(dir, name));
    }
  }).timeout(60_000);

  it('finds every single flipped bit', async () => {
    const line = Buffer.from(checkedLine({ acked: [newId()] }));
    for (let at = 0; at < line.length - 1; at++)
      for (let bit = 0; bit < 8; bit++) {
        writeFileSync(file, flipBit(line, at, bit));
        assert.deepEqual([await load(), asides().length], [[], 1], `byte ${at}, bit ${bit}`);
        for (const name of asides()) rmSync(join(dir, name));
      }
  }).timeout(60_000);

  it('is said to be damaged in the log, with the place where the lines lie', async () => {
    const said: string[] = [];
    const log = pino({ level: 'warn' }, { write: (text: string) => void said.push(text) });
    appendFileSync(file, 'not ours\n{"id":7}\n{"torn');
    await (await openJournal(dir, log)).close();
    const [aside] = asides();
    assert.equal(readFileSync(join(dir, aside!), 'utf8'), 'not ours\n{"id":7}\n{"torn\n');
    assert.match(said.join(''), new RegExp(`damaged of the task journal \\(3 lines\\).*was set aside`));
    assert.ok(said.join('').includes(join(dir, aside!)), 'the place is told');
  });

  it('of lines of the wrong types, and of one line of 20 MiB, costs only these lines', async () => {
    for (const line of [[], 7, null, { id: newId() }, { epoch: 'late' }, { acked: 'all' }, { x: 'x'.repeat(20 * 2 ** 20) }])
      appendFileSync(file, checkedLine(line));
    assert.equal((await load()).length, 12);
    assert.equal(asides().length, 1);
  });

  it('that grew to terabytes is set aside whole, unread', async () => {
    truncateSync(file, 2 ** 40);
    assert.deepEqual(await load(), []);
    assert.equal(asides().length, 1);
  });

  it('is kept ten times at most', async () => {
    for (let i = 0; i < 13; i++) {
      appendFileSync(file, `bad ${i}\n`);
      await load();
    }
    const kept = asides().map(name => readFileSync(join(dir, name), 'utf8'));
    assert.ok(kept.length <= 10 && kept.at(-1) === 'bad 12\n', kept.join());
  });

  it('has a neighbour that is not believed either: the address of the controller, with any bit flipped', () => {
    const address = { url: 'http://10.0.0.11:7070', hostId: newId(), token: 't'.repeat(32) };
    writeController(dir, address);
    assert.deepEqual(readController(dir, silent), address);
    const path = join(dir, 'controller');
    const good = readFileSync(path);
    for (let at = 0; at < good.length - 1; at++) {
      writeFileSync(path, flipBit(good, at, at % 8));
      assert.equal(readController(dir, silent), undefined, `byte ${at}`);
    }
  });
});
