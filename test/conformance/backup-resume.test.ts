import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fetchImage, publishImage, removeImage } from '../../agent/backup/layout.ts';
import { openBackupStore } from '../../agent/backup/registry.ts';
import type { BackupStore } from '../../agent/backup/driver.ts';
import { fileSink } from '../../agent/transfer/file-end.ts';
import { PART_SIZE } from '../../agent/transfer/parts.ts';
import { newId } from '../../shared/id.ts';
import { filesBelow, flipByte, PART, sinkInto, tempFolder } from './backup-image.ts';
import { backupTargets, type BackupTarget } from './backup-targets.ts';
import { fillPattern, gatedSink, gatedSource } from './gate-end.ts';
import type { UploadOrder } from './upload-process.ts';

const never = new AbortController().signal;
const calm = { streams: 2, stallSeconds: 20, signal: never };
const PARTS = 10;
const SIZE = PARTS * PART_SIZE;
const raw = (id: string) => ({ id, format: 'raw' as const, virtualSize: SIZE });

for (const [name, { type = name, start }] of Object.entries(backupTargets)) {
  describe(`an upload that was cut short: ${name}`, () => {
    let target: BackupTarget;
    let store: BackupStore;
    let id: string;

    before(async () => {
      target = await start();
      store = await openBackupStore({ id: newId(), type, config: target.config }, never);
    });
    after(async () => {
      await store.close();
      await target[Symbol.asyncDispose]();
    });
    beforeEach(() => (id = newId()));
    afterEach(() => removeImage(store, id));

    /** An agent uploads nine of ten parts, and is killed. */
    const dieInTheMiddle = async (): Promise<void> => {
      const child = fork(new URL('./upload-process.ts', import.meta.url), { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
      const order: UploadOrder = { type, config: target.config, id, size: SIZE, open: 9 * PART_SIZE, partSize: PART_SIZE };
      child.send(order);
      const [said] = (await Promise.race([once(child, 'message'), once(child, 'exit')])) as unknown[];
      assert.equal(said, 'stands still');
      child.kill('SIGKILL');
      await once(child, 'exit');
    };

    it('is gone on with after kill -9, and what comes back is right', async () => {
      await using folder = await tempFolder();
      await dieInTheMiddle();
      const { summary } = await publishImage(store, raw(id), gatedSource(SIZE, SIZE), calm);
      assert.ok(summary.resumed >= 2 * PART_SIZE, `${summary.resumed} bytes were there already`);
      assert.equal(summary.moved, SIZE - summary.resumed);
      await fetchImage(store, id, m => sinkInto(folder.path, m.size), calm);
      const expected = Buffer.alloc(SIZE);
      fillPattern(0, expected);
      assert.ok((await readFile(join(folder.path, 'arrived'))).equals(expected));
    });

    it('is begun anew where the image is another one now', async () => {
      await dieInTheMiddle();
      const { manifest, summary } = await publishImage(store, raw(id), shifted(), calm);
      assert.equal(summary.resumed, 0);
      const back = await fetchImage(store, id, gatedSink(2 * SIZE), calm);
      assert.equal(back.manifest.digest, manifest.digest);
    });
  });
}

/** The pattern one byte further: no part is what it was. */
function shifted(): ReturnType<typeof gatedSource> {
  const source = gatedSource(SIZE + 1, 2 * SIZE);
  return { ...source, size: SIZE, offsets: Array.from({ length: PARTS }, (_, part) => part * PART_SIZE + 1) };
}

describe('a download that was cut short', () => {
  const small = { ...calm, streams: 1, partSize: PART };
  const open = async (): Promise<AsyncDisposable & { store: BackupStore; id: string }> => {
    const target = await backupTargets.dir!.start();
    const store = await openBackupStore({ id: newId(), type: 'dir', config: target.config }, never);
    const id = newId();
    await publishImage(store, raw(id), gatedSource(8 * PART, 8 * PART), small);
    return { store, id, [Symbol.asyncDispose]: () => target[Symbol.asyncDispose]() };
  };
  const into = (folder: string) => (manifest: { digest: string; size: number }) =>
    fileSink({
      partial: join(folder, 'arriving'),
      final: join(folder, 'arrived'),
      size: manifest.size,
      resume: { partSize: PART, tag: manifest.digest },
    });
  /** Cancelled once `parts` parts have arrived. */
  const cutShort = async (store: BackupStore, id: string, folder: string, parts: number): Promise<void> => {
    const cancel = new AbortController();
    let arrived = 0;
    const counting = async (manifest: { digest: string; size: number }) => {
      const sink = await into(folder)(manifest);
      const note = sink.arrived!;
      sink.arrived = (part, digest) => {
        note(part, digest);
        if (++arrived === parts) cancel.abort();
      };
      return sink;
    };
    await assert.rejects(fetchImage(store, id, counting, { ...small, signal: cancel.signal }), { name: 'AbortError' });
  };
  const whole = (): Buffer => {
    const bytes = Buffer.alloc(8 * PART);
    fillPattern(0, bytes);
    return bytes;
  };

  it('is gone on with after a cancel, and leaves nothing but the image', async () => {
    await using folder = await tempFolder();
    await using there = await open();
    await cutShort(there.store, there.id, folder.path, 3);
    const { summary } = await fetchImage(there.store, there.id, into(folder.path), small);
    assert.ok(summary.resumed >= 3 * PART, `${summary.resumed} bytes were there already`);
    assert.deepEqual(await filesBelow(folder.path), ['arrived']);
    assert.ok((await readFile(join(folder.path, 'arrived'))).equals(whole()));
  });

  it('brings a part again that changed meanwhile', async () => {
    await using folder = await tempFolder();
    await using there = await open();
    await cutShort(there.store, there.id, folder.path, 3);
    await flipByte(join(folder.path, 'arriving'), PART + 5);
    await fetchImage(there.store, there.id, into(folder.path), small);
    assert.ok((await readFile(join(folder.path, 'arrived'))).equals(whole()));
  });

  it('begins anew without its journal, and with that of another image', async () => {
    await using folder = await tempFolder();
    await using there = await open();
    await cutShort(there.store, there.id, folder.path, 3);
    await rm(join(folder.path, 'arriving.parts'));
    assert.equal((await fetchImage(there.store, there.id, into(folder.path), small)).summary.resumed, 0);

    await cutShort(there.store, there.id, folder.path, 3);
    await using other = await open();
    await publishImage(other.store, raw(other.id), gatedSource(8 * PART - 1, 8 * PART), small);
    assert.equal((await fetchImage(other.store, other.id, into(folder.path), small)).summary.resumed, 0);
  });

  it('leaves nothing where its bytes are not those of the image', async () => {
    await using folder = await tempFolder();
    await using there = await open();
    const manifest = await fetchImage(there.store, there.id, gatedSink(8 * PART), small);
    const wrong = gatedSource(8 * PART, 8 * PART);
    assert.equal(manifest.manifest.parts.length, 8);
    const store = { ...there.store, source: () => Promise.resolve({ ...wrong, offsets: wrong8() }) };
    await assert.rejects(fetchImage(store, there.id, into(folder.path), small), { code: 'DIGEST_MISMATCH' });
    assert.deepEqual(await filesBelow(folder.path), []);
  });
});

/** The last part is read from elsewhere. */
const wrong8 = (): number[] => Array.from({ length: 8 }, (_, part) => (part === 7 ? 1 : part * PART));
