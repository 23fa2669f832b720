import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { readChecked } from '../../agent/tasks/checked-line.ts';
import { openJournal, type TaskRecord } from '../../agent/tasks/journal.ts';
import { createRegistry, reportOf, type Task } from '../../agent/tasks/registry.ts';
import { CisternError } from '../../shared/errors.ts';
import { newId } from '../../shared/id.ts';

const log = pino({ level: 'silent' });
const POOL = { id: newId(), type: 'local', config: { path: '/srv/pool', password: 'MARKER-SECRET' } };
const evict = (imageId = newId()) => ({ kind: 'cache.evict', input: { pool: POOL, imageId } }) as const;

describe('the task journal', () => {
  let dir: string;
  let file: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'cistern-journal-'));
    file = join(dir, 'tasks.jsonl');
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  /** One run of an agent: what it finds, and a way to end it. */
  async function run(options: { maxActive?: number; now?: number } = {}) {
    const journal = await openJournal(dir, log, options.now);
    const changes: Task[] = [];
    const registry = createRegistry({
      journal,
      log,
      key: 'k'.repeat(32),
      changed: task => void changes.push(task),
      maxActive: options.maxActive,
    });
    return { journal, registry, changes, [Symbol.asyncDispose]: () => journal.close() };
  }

  it('finds ended tasks again after a restart, with their outputs, errors and acknowledgements', async () => {
    const [a, b] = [newId(), newId()];
    {
      await using first = await run();
      first.registry.finish((await first.registry.add(a, evict())).task, { state: 'succeeded', output: { freed: 7 } });
      const error = { type: 't', title: 't', status: 500, code: 'IO_ERROR', detail: 'd', action: 'a', retryable: false };
      first.registry.finish((await first.registry.add(b, evict())).task, { state: 'failed', error });
      first.registry.acked([a]);
    }
    await using second = await run();
    assert.deepEqual(reportOf(second.registry.get(a)).output, { freed: 7 });
    assert.equal(second.registry.get(b).error?.code, 'IO_ERROR');
    assert.deepEqual([second.registry.get(a).acked, second.registry.get(b).acked], [true, false]);
    assert.deepEqual(second.changes, [], 'nothing happened to them');
  });

  it('fails what was at work as TASK_INTERRUPTED and remembers to clean its pool until that is done', async () => {
    const id = newId();
    {
      await using first = await run();
      first.registry.started((await first.registry.add(id, evict())).task);
    }
    {
      await using second = await run();
      assert.equal(second.registry.get(id).state, 'failed');
      assert.equal(second.registry.get(id).error?.code, 'TASK_INTERRUPTED');
      assert.deepEqual(
        second.changes.map(task => task.id),
        [id],
        'it is reported',
      );
    }
    {
      await using third = await run();
      assert.deepEqual(third.registry.unswept(POOL.id), [id], 'a restart does not forget it');
      assert.deepEqual(third.registry.unswept(newId()), [], "it is no other pool's concern");
      third.registry.swept([id]);
    }
    await using fourth = await run();
    assert.deepEqual(fourth.registry.unswept(POOL.id), []);
  });

  it('holds no command: no secret, only a keyed fingerprint, readable by its owner alone', async () => {
    await using first = await run();
    await first.registry.add(newId(), evict());
    assert.doesNotMatch(readFileSync(file, 'utf8'), /MARKER-SECRET|srv/);
    assert.equal(statSync(file).mode & 0o777, 0o600);
  });

  it('knows a command by its meaning: keys in another order are the same, another value is TASK_ID_REUSED', async () => {
    await using first = await run();
    const [id, imageId] = [newId(), newId()];
    await first.registry.add(id, evict(imageId));
    const turned = {
      input: { imageId, pool: { config: { password: 'MARKER-SECRET', path: '/srv/pool' }, type: 'local', id: POOL.id } },
      kind: 'cache.evict',
    } as const;
    assert.equal((await first.registry.add(id, turned)).isNew, false);
    await assert.rejects(first.registry.add(id, evict()), (error: CisternError) => error.code === 'TASK_ID_REUSED');
  });

  it('is BUSY at its limit and takes tasks again when one has ended', async () => {
    await using first = await run({ maxActive: 2 });
    const { task } = await first.registry.add(newId(), evict());
    await first.registry.add(newId(), evict());
    await assert.rejects(first.registry.add(newId(), evict()), (error: CisternError) => error.code === 'BUSY');
    first.registry.finish(task, { state: 'succeeded', output: {} });
    await first.registry.add(newId(), evict());
  });

  it('starts anew where the file cannot be read at all', async () => {
    mkdirSync(file);
    await using first = await run();
    await first.registry.add(newId(), evict());
    assert.ok(existsSync(file) && statSync(file).isFile());
  });

  it('numbers its runs upwards, also when the clock went back', async () => {
    let first: number;
    {
      await using run1 = await run({ now: 2_000_000 });
      first = run1.journal.epoch;
    }
    await using run2 = await run({ now: 1_000_000 });
    assert.ok(run2.journal.epoch > first);
  });

  it('is rewritten when it holds far more lines than tasks, losing none', async () => {
    await using first = await run();
    const id = newId();
    await first.registry.add(id, evict());
    const other = (await first.registry.add(newId(), evict())).task;
    for (let i = 0; i < 11_000; i++) first.registry.acked([other.id]);
    await first.registry.add(newId(), evict());
    await first.registry.add(newId(), evict());
    const lines = readFileSync(file, 'utf8').trim().split('\n');
    assert.ok(lines.length < 2000, `${lines.length} lines`);
    assert.ok(lines.some(line => (readChecked(Buffer.from(line)) as TaskRecord).id === id));
  });
});
