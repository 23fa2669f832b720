import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
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
  function run(options: { maxActive?: number; now?: number } = {}) {
    const journal = openJournal(dir, log, options.now);
    const changes: Task[] = [];
    const registry = createRegistry({
      journal,
      log,
      key: 'k'.repeat(32),
      changed: task => void changes.push(task),
      maxActive: options.maxActive,
    });
    return { journal, registry, changes, [Symbol.dispose]: () => journal.close() };
  }

  it('finds ended tasks again after a restart, with their outputs, errors and acknowledgements', () => {
    const [a, b] = [newId(), newId()];
    {
      using first = run();
      first.registry.finish(first.registry.add(a, evict()).task, { state: 'succeeded', output: { freed: 7 } });
      const error = { type: 't', title: 't', status: 500, code: 'IO_ERROR', detail: 'd', action: 'a', retryable: false };
      first.registry.finish(first.registry.add(b, evict()).task, { state: 'failed', error });
      first.registry.acked([a]);
    }
    using second = run();
    assert.deepEqual(reportOf(second.registry.get(a)).output, { freed: 7 });
    assert.equal(second.registry.get(b).error?.code, 'IO_ERROR');
    assert.deepEqual([second.registry.get(a).acked, second.registry.get(b).acked], [true, false]);
    assert.deepEqual(second.changes, [], 'nothing happened to them');
  });

  it('fails what was at work as TASK_INTERRUPTED and remembers to clean its pool until that is done', () => {
    const id = newId();
    {
      using first = run();
      first.registry.started(first.registry.add(id, evict()).task);
    }
    {
      using second = run();
      assert.equal(second.registry.get(id).state, 'failed');
      assert.equal(second.registry.get(id).error?.code, 'TASK_INTERRUPTED');
      assert.deepEqual(
        second.changes.map(task => task.id),
        [id],
        'it is reported',
      );
    }
    {
      using third = run();
      assert.deepEqual(third.registry.unswept(POOL.id), [id], 'a restart does not forget it');
      assert.deepEqual(third.registry.unswept(newId()), [], "it is no other pool's concern");
      third.registry.swept([id]);
    }
    using fourth = run();
    assert.deepEqual(fourth.registry.unswept(POOL.id), []);
  });

  it('holds no command: no secret, only a keyed fingerprint, readable by its owner alone', () => {
    using first = run();
    first.registry.add(newId(), evict());
    assert.doesNotMatch(readFileSync(file, 'utf8'), /MARKER-SECRET|srv/);
    assert.equal(statSync(file).mode & 0o777, 0o600);
  });

  it('knows a command by its meaning: keys in another order are the same, another value is TASK_ID_REUSED', () => {
    using first = run();
    const [id, imageId] = [newId(), newId()];
    first.registry.add(id, evict(imageId));
    const turned = {
      input: { imageId, pool: { config: { password: 'MARKER-SECRET', path: '/srv/pool' }, type: 'local', id: POOL.id } },
      kind: 'cache.evict',
    } as const;
    assert.equal(first.registry.add(id, turned).isNew, false);
    assert.throws(
      () => first.registry.add(id, evict()),
      (error: CisternError) => error.code === 'TASK_ID_REUSED',
    );
  });

  it('is BUSY at its limit and takes tasks again when one has ended', () => {
    using first = run({ maxActive: 2 });
    const { task } = first.registry.add(newId(), evict());
    first.registry.add(newId(), evict());
    assert.throws(
      () => first.registry.add(newId(), evict()),
      (error: CisternError) => error.code === 'BUSY',
    );
    first.registry.finish(task, { state: 'succeeded', output: {} });
    first.registry.add(newId(), evict());
  });

  it('sets lines aside that cannot be read, a torn last one too, and goes on with the rest', () => {
    const id = newId();
    {
      using first = run();
      first.registry.finish(first.registry.add(id, evict()).task, { state: 'succeeded', output: {} });
    }
    writeFileSync(file, `${readFileSync(file, 'utf8')}{"id":"torn`, { flag: 'w' });
    writeFileSync(file, `not json\n{"id":7}\n${readFileSync(file, 'utf8')}`);
    using second = run();
    assert.equal(second.registry.get(id).state, 'succeeded');
    assert.equal(readFileSync(`${file}.corrupt`, 'utf8'), 'not json\n{"id":7}\n{"id":"torn\n');
    assert.doesNotMatch(readFileSync(file, 'utf8'), /torn|not json/);
  });

  it('starts anew where the file cannot be read at all', () => {
    mkdirSync(file);
    using first = run();
    first.registry.add(newId(), evict());
    assert.ok(existsSync(file) && statSync(file).isFile());
  });

  it('numbers its runs upwards, also when the clock went back', () => {
    let first: number;
    {
      using run1 = run({ now: 2_000_000 });
      first = run1.journal.epoch;
    }
    using run2 = run({ now: 1_000_000 });
    assert.ok(run2.journal.epoch > first);
  });

  it('is rewritten when it holds far more lines than tasks, losing none', () => {
    using first = run();
    const id = newId();
    first.registry.add(id, evict());
    const other = first.registry.add(newId(), evict()).task;
    for (let i = 0; i < 11_000; i++) first.registry.acked([other.id]);
    const lines = readFileSync(file, 'utf8').trim().split('\n');
    assert.ok(lines.length < 2000, `${lines.length} lines`);
    assert.ok(lines.some(line => (JSON.parse(line) as TaskRecord).id === id));
  });
});
