import assert from 'node:assert/strict';
import { existsSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { execa } from 'execa';
import type { Operation } from '../../shared/model.ts';
import { done, WAIT } from '../servers/cistern.ts';
import { dump, failsWith, filesBelow, type House, makeDisk, MiB, openHouse, until } from './house.ts';
import { ask, events, send } from './http.ts';

describe('operations', () => {
  let house: House;
  let api: House['api'];
  let store: string;
  let pool: string;
  let spool: string;

  before(async function () {
    this.timeout(60_000);
    house = await openHouse({ hosts: ['host-1'] });
    api = house.api;
    store = await house.addStore('depot');
    pool = (await house.addPool('fast'))(1);
    spool = join(house.cistern.folder, 'host-1/state/spool');
    await makeDisk(join(house.files, 'disk.raw'), 8 * MiB, 'operations');
    await execa('qemu-img', [
      'create',
      '-q',
      '-f',
      'qcow2',
      '-b',
      '/etc/passwd',
      '-F',
      'raw',
      join(house.files, 'hostile.qcow2'),
      '8M',
    ]);
    await done(house.importFile('disk.raw', { name: 'base' }));
  });
  after(() => house?.[Symbol.asyncDispose]());

  const startImport = (name: string, file = 'disk.raw') =>
    api.importImage({ body: { name, source: { type: 'url', url: `${house.web.url}/${file}` } } });
  const resize = (ref: string, size: number) => api.resizeVolume({ params: { ref }, body: { size } });
  const makeVolume = (name: string) => done(api.createVolumes({ body: { name, size: MiB, primaryStorage: 'fast' } }, WAIT));
  const show = (id: string) => api.getOperation({ params: { ref: id } });

  /** An import whose server sends some bytes and then holds back the rest. */
  async function stuckImport(name: string): Promise<Operation> {
    house.web.behave('/disk.raw', { stallAfter: 2 * MiB, times: 1 });
    const { id } = await startImport(name);
    return until('the download has begun', async () => {
      const operation = await show(id);
      return operation.progress?.stage === 'download' && operation.progress.done > 0 && operation;
    });
  }

  /** Runs `work` and checks that it left nothing behind: no row, no file, no object; only the operations themselves. */
  async function leavesNothing(work: () => Promise<void>): Promise<void> {
    const look = async () => ({ lists: (await dump(api) as unknown[]).slice(0, -1), spool: filesBelow(spool), store: filesBelow(store), pool: filesBelow(pool) }); // prettier-ignore
    const before = await look();
    await work();
    assert.deepEqual(await look(), before);
  }

  it('are started once for one Idempotency-Key, however often the request comes', async () => {
    const headers = { 'Idempotency-Key': 'make-one' };
    const make = (name: string) => api.createVolumes({ body: { name, size: MiB, primaryStorage: 'fast' } }, { headers });
    const ids = (await Promise.all(Array.from({ length: 8 }, () => make('once')))).map(operation => operation.id);
    assert.equal(new Set(ids).size, 1);
    assert.equal((await house.ended(ids[0]!)).state, 'succeeded');
    const late = await make('once');
    assert.equal(late.id, ids[0]);
    assert.equal(late.state, 'succeeded');
    await assert.rejects(make('twice'), failsWith('IDEMPOTENCY_MISMATCH', /belongs to operation/));
    await assert.rejects(resizeWithKey(), failsWith('IDEMPOTENCY_MISMATCH'));
    assert.equal((await api.listVolumes({ query: { limit: 10 } })).items.filter(volume => volume.name === 'once').length, 1);
    async function resizeWithKey() {
      await api.resizeVolume({ params: { ref: 'once' }, body: { size: 2 * MiB } }, { headers });
    }
  });

  it('are answered at once, or when they have ended where the client prefers to wait', async () => {
    const body = { name: 'prefer', size: MiB, primaryStorage: 'fast' };
    const { controller } = house.cistern;
    const atOnce = await send(controller, 'POST', '/api/v1/volumes', body);
    assert.equal(atOnce.status, 202);
    assert.equal(atOnce.headers.get('Location'), `/api/v1/operations/${String(atOnce.json!.id)}`);
    assert.equal(atOnce.json!.state, 'running');
    await house.ended(String(atOnce.json!.id));
    const waited = await send(
      controller,
      'POST',
      '/api/v1/volumes',
      { ...body, name: 'prefer-2' },
      { Prefer: 'respond-async, wait=30' },
    );
    assert.equal(waited.headers.get('Preference-Applied'), 'wait=30');
    assert.equal(waited.json!.state, 'succeeded');
  });

  it('can be waited for, no longer than asked', async () => {
    const { id } = await stuckImport('waited-for');
    const began = performance.now();
    const still = await api.getOperation({ params: { ref: id }, query: { wait: 0.5 } });
    assert.equal(still.state, 'running');
    const seconds = (performance.now() - began) / 1000;
    assert.ok(seconds >= 0.45 && seconds < 10, `it took ${seconds} s`);
    const waiting = api.getOperation({ params: { ref: id }, query: { wait: 30 } });
    await api.cancelOperation({ params: { ref: id } });
    assert.equal((await waiting).state, 'cancelled');
  });

  it('leave no row, file or object when they are cancelled in the middle', async () => {
    await leavesNothing(async () => {
      const { id } = await stuckImport('cancelled');
      assert.ok(filesBelow(spool).length > 0, 'nothing is in the spool: it is not in the middle');
      await api.cancelOperation({ params: { ref: id } });
      const ended = await house.ended(id);
      assert.equal(ended.state, 'cancelled');
      assert.equal(ended.error?.code, 'CANCELLED');
      await assert.rejects(api.cancelOperation({ params: { ref: id } }), failsWith('WRONG_STATE', /cancelled/));
    });
  });

  it('can be retried after a cancel, with the same input', async () => {
    const { id } = await stuckImport('again');
    await api.cancelOperation({ params: { ref: id } });
    await house.ended(id);
    const retried = await done(api.retryOperation({ params: { ref: id } }, WAIT));
    assert.equal(retried.retryOf, id);
    assert.equal((await api.getImage({ params: { ref: 'again' } })).status, 'ready');
    await assert.rejects(api.retryOperation({ params: { ref: retried.id } }), failsWith('WRONG_STATE', /succeeded/));
  });

  it('leave nothing when they fail: a wrong checksum, a hostile image, a server without the file', async () => {
    const failures = [
      ['disk.raw', { sha256: '0'.repeat(64) }, 'IMAGE_CHECKSUM', /expected was 0000/],
      ['hostile.qcow2', {}, 'IMAGE_BACKING_FILE', /passwd|backing/],
      ['missing.raw', {}, 'URL_FAILED', /404/],
      ['disk.raw', { sourceFormat: 'vmdk' as const }, 'IMAGE_FORMAT_MISMATCH', /no vmdk header/],
    ] as const;
    await leavesNothing(async () => {
      for (const [file, more, code, detail] of failures) {
        const failed = await house.importFile(file, { name: 'failing', ...more });
        assert.equal(failed.state, 'failed');
        assert.equal(failed.error?.code, code, failed.error?.detail);
        assert.match(failed.error!.detail, detail);
        assert.ok(failed.error!.action.length > 10);
      }
    });
  });

  it('free the name when they fail, and succeed when retried once the cause is gone', async () => {
    const failed = await house.importFile('late.raw', { name: 'late' });
    assert.equal(failed.state, 'failed');
    renameSync(join(house.files, 'disk.raw'), join(house.files, 'late.raw'));
    try {
      await done(api.retryOperation({ params: { ref: failed.id } }, WAIT));
    } finally {
      renameSync(join(house.files, 'late.raw'), join(house.files, 'disk.raw'));
    }
    const late = await api.getImage({ params: { ref: 'late' } });
    assert.ok(existsSync(join(store, 'images', late.id, 'manifest.json')));
  });

  it('leave nothing when an upload breaks off and is then cancelled', async () => {
    await leavesNothing(async () => {
      const started = await api.importImage({ body: { name: 'broken', source: { type: 'upload', size: 8 * MiB } } });
      const { controller } = house.cistern;
      const broken = new AbortController();
      const body = new ReadableStream({
        start: stream => stream.enqueue(new Uint8Array(MiB)),
        pull: async () => {
          await until('bytes have come to the host', async () => ((await show(started.id)).progress?.done ?? 0) > 0);
          broken.abort();
        },
      });
      const request = {
        method: 'PUT',
        body,
        duplex: 'half',
        signal: broken.signal,
        headers: { Authorization: `Bearer ${controller.token}` },
      };
      await assert.rejects(fetch(`${controller.url}/api/v1/images/broken/upload`, request as RequestInit), {
        name: 'AbortError',
      });
      assert.equal((await show(started.id)).state, 'running', 'a broken upload may be sent again');
      await api.cancelOperation({ params: { ref: started.id } });
      assert.equal((await house.ended(started.id)).state, 'cancelled');
    });
  });

  it('refuse a second one on the same volume, naming the first', async () => {
    await makeVolume('busy');
    const [agent] = house.cistern.agents;
    process.kill(agent!.pid, 'SIGSTOP');
    let first: Operation;
    try {
      first = await resize('busy', 2 * MiB);
      for (const second of [
        () => api.deleteVolume({ params: { ref: 'busy' } }),
        () => resize('busy', 3 * MiB),
        () => api.uploadVolume({ params: { ref: 'busy' }, body: { name: 'of-busy' } }),
        () => api.deleteVolumes({ body: { volumes: ['once', 'busy'] } }),
      ])
        await assert.rejects(second(), failsWith('WRONG_STATE', new RegExp(first.id)));
    } finally {
      process.kill(agent!.pid, 'SIGCONT');
    }
    assert.equal((await house.ended(first.id)).state, 'succeeded');
    assert.equal((await api.getVolume({ params: { ref: 'busy' } })).size, 2 * MiB);
    assert.equal((await api.getVolume({ params: { ref: 'once' } })).status, 'ready');
    await done(api.deleteVolume({ params: { ref: 'busy' } }, WAIT));
  });

  it('of one volume asked for at the same time: one is done, the other refused or done after it', async () => {
    for (let i = 0; i < 5; i++) {
      await makeVolume(`torn-${i}`);
      const [grown, deleted] = await Promise.allSettled([
        done(api.resizeVolume({ params: { ref: `torn-${i}` }, body: { size: 2 * MiB } }, WAIT)),
        done(api.deleteVolume({ params: { ref: `torn-${i}` } }, WAIT)),
      ]);
      assert.ok(grown.status === 'fulfilled' || deleted.status === 'fulfilled');
      // a resize that comes after the delete finds no volume any more
      if (grown.status === 'rejected') assert.ok(['WRONG_STATE', 'NOT_FOUND'].includes((grown.reason as { code: string }).code));
      if (deleted.status === 'rejected') failsWith('WRONG_STATE')(deleted.reason);
      if (deleted.status === 'rejected') await done(api.deleteVolume({ params: { ref: `torn-${i}` } }, WAIT));
    }
  });

  it('on a backup storage: an image comes into it, or it goes', async function () {
    this.timeout(60_000);
    const names = Array.from({ length: 10 }, (_, i) => `torn-${i}`);
    for (const name of names) await house.addStore(name);
    const told = names.map(async name => {
      const [gone, come] = await Promise.allSettled([
        done(api.deleteBackupStorage({ params: { ref: name } }, WAIT)),
        done(house.importFile('disk.raw', { name, backupStorages: [name] })),
      ]);
      assert.notEqual(gone.status, come.status, name);
      if (gone.status === 'rejected') assert.match(String(gone.reason), /images lie on backup storage/);
    });
    await Promise.all(told);
  });

  it('stream their changes, and the stream ends with the final state', async () => {
    const { id } = await stuckImport('streamed');
    const seen: Operation[] = [];
    for await (const { event, data } of events(house.cistern.controller, `/api/v1/operations/${id}/events`)) {
      assert.equal(event, 'operation');
      if (seen.length === 0) await api.cancelOperation({ params: { ref: id } });
      seen.push(data as Operation);
    }
    assert.equal(seen[0]!.state, 'running');
    assert.equal(seen.at(-1)!.state, 'cancelled');
    assert.equal(seen.filter(one => one.state === 'cancelled').length, 1);
    const ended: unknown[] = [];
    for await (const { data } of events(house.cistern.controller, `/api/v1/operations/${id}/events`)) ended.push(data);
    assert.equal(ended.length, 1, 'of an ended operation the stream tells the end at once');
  });

  it('are told by the event stream, which goes on where it was left', async () => {
    const { controller } = house.cistern;
    const before = (await api.listEvents({ query: { limit: 1000 } })).items;
    const last = before.at(-1)!.seq;
    const reader = events(controller, '/api/v1/events', { 'Last-Event-ID': String(last - 2) });
    const next = async () => (await reader.next()).value!;
    assert.deepEqual([(await next()).id, (await next()).id], [String(last - 1), String(last)]);
    await makeVolume('told');
    const told = await next();
    assert.equal(told.event, 'event');
    const { seq, type, resource } = told.data as { seq: number; type: string; resource: { kind: string } };
    assert.equal(String(seq), told.id);
    assert.equal(type, 'operation.succeeded');
    assert.equal(resource.kind, 'operation');
    await reader.return(undefined);
    const seqs = (await api.listEvents({ query: { limit: 1000 } })).items.map(event => event.seq);
    assert.deepEqual(seqs, [...seqs].sort((a, b) => a - b)); // prettier-ignore
  });

  it('are listed newest first, by kind, state and what they work on, page by page', async () => {
    const all = (await api.listOperations({ query: { limit: 1000 } })).items.map(one => one.id);
    const paged: string[] = [];
    for (let cursor: string | undefined; ;) {
      const page = await api.listOperations({ query: { limit: 7, cursor } });
      paged.push(...page.items.map(one => one.id));
      if (page.next === null) break;
      cursor = page.next;
    }
    assert.deepEqual(paged, all);
    assert.deepEqual(all, [...all].sort().reverse());
    const { id } = await api.getImage({ params: { ref: 'base' } });
    const ofImage = (await api.listOperations({ query: { resource: id, kind: 'image.import', state: 'succeeded' } })).items;
    assert.equal(ofImage.length, 1);
    const unknown = await ask(house.cistern.controller, 'GET', '/api/v1/operations/01890000-0000-7000-8000-000000000000');
    assert.equal(unknown.json!.code, 'NOT_FOUND');
  });

  it('have left no lock, reservation or garbage in the database', async () => {
    const { controller } = house.cistern;
    await controller.stop();
    const db = new DatabaseSync(join(house.cistern.folder, 'controller/state/cistern.db'), { readOnly: true });
    try {
      for (const table of ['locks', 'reservations', 'garbage'])
        assert.deepEqual(db.prepare(`select * from ${table}`).all(), [], table);
      assert.deepEqual(db.prepare('select id from operations where finished_at is null').all(), []);
      assert.deepEqual(db.prepare(`select name from images where status <> 'ready'`).all(), []);
    } finally {
      db.close();
    }
  });
});
