import assert from 'node:assert/strict';
import { mkdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { BackupStore } from '../../agent/backup/driver.ts';
import { fetchImage, publishImage, readManifest, removeImage } from '../../agent/backup/layout.ts';
import { probeName, staleProbes } from '../../agent/backup/probe.ts';
import { conformanceCases, runConformance } from '../../agent/backup/conformance/run.ts';
import { backupDrivers, openBackupStore } from '../../agent/backup/registry.ts';
import { fileSource } from '../../agent/transfer/file-end.ts';
import { PART_SIZE, ZERO } from '../../agent/transfer/parts.ts';
import { transfer } from '../../agent/transfer/transfer.ts';
import { CisternError, type ErrorCode } from '../../shared/errors.ts';
import { newId } from '../../shared/id.ts';
import { filesBelow, makeImage, PART as SMALL_PART, sinkInto, tempFolder } from './backup-image.ts';
import { backupTargets, type BackupTarget } from './backup-targets.ts';
import { gatedSink, gatedSource } from './gate-end.ts';

const never = new AbortController().signal;
const raw = (id: string, virtualSize: number) => ({ id, format: 'raw' as const, virtualSize });
const coded =
  (code: ErrorCode, words = /./) =>
  (error: unknown) => {
    assert.ok(error instanceof CisternError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, words);
    return true;
  };

describe('backup storage: every driver', () => {
  it('has a real storage to be tested against', () => {
    const tested = new Set(Object.entries(backupTargets).map(([name, { type = name }]) => type));
    assert.deepEqual(backupDrivers.map(driver => driver.type).sort(), [...tested].sort());
  });
});

for (const [name, { type = name, part: PART = SMALL_PART, tool, folder, start }] of Object.entries(backupTargets)) {
  describe(`backup storage: ${name}`, () => {
    const calm = { streams: 2, stallSeconds: 20, signal: never, partSize: PART };
    let target: BackupTarget;
    let store: BackupStore;
    let id: string;
    const open = (config: unknown): Promise<BackupStore> => openBackupStore({ id: newId(), type, config }, never);
    const objectOf = (image: string): string => `images/${image}/image.raw`;
    const manifestOf = (image: string): string => `images/${image}/manifest.json`;

    before(async () => {
      target = await start();
      store = await open(target.config);
    });
    after(async () => {
      await store.close();
      await target[Symbol.asyncDispose]();
    });
    beforeEach(() => (id = newId()));
    afterEach('leaves nothing behind once the image is removed', async () => {
      await removeImage(store, id);
      assert.deepEqual(await target.files(), []);
    });

    it('says that it works, and leaves no probe', async () => {
      await store.check();
      assert.deepEqual(await target.files(), []);
    });

    it('removes the probe of a check that was killed', async () => {
      const old = probeName(Date.now() - 2 * 3600_000);
      assert.deepEqual(staleProbes([old, probeName()]), [old]);
      await target.writeObject(old, Buffer.from('probe'));
      await store.check();
      assert.deepEqual(await target.files(), []);
    });

    it('tells how much room there is, where it can', async () => {
      const capacity = await store.capacity?.();
      if (capacity) assert.ok(capacity.available > 0 && capacity.available <= capacity.total);
      else assert.equal(target.root, undefined);
    });

    const sizes = {
      nothing: 0,
      'one byte': 1,
      'a part less one': PART - 1,
      'one part': PART,
      'three parts and seven bytes': 3 * PART + 7,
    };
    for (const [words, size] of Object.entries(sizes)) {
      it(`keeps and gives back an image of ${words}`, async () => {
        await using folder = await tempFolder();
        const file = join(folder.path, 'image');
        await makeImage(file, size);
        const up = await publishImage(store, raw(id, size), await fileSource(file), calm);
        assert.equal(up.manifest.parts.length, Math.ceil(size / PART));
        assert.deepEqual(await target.readObject(objectOf(id)), await readFile(file));
        const down = await fetchImage(store, id, m => sinkInto(folder.path, m.size), calm);
        assert.deepEqual(down.manifest, up.manifest);
        assert.deepEqual(await readFile(join(folder.path, 'arrived')), await readFile(file));
        assert.equal((await stat(join(folder.path, 'arrived'))).mode & 0o777, 0o444);
      });
    }

    it('moves parts of the real size, by more streams than there are parts too', async () => {
      await using folder = await tempFolder();
      const file = join(folder.path, 'image');
      await makeImage(file, 3 * PART_SIZE + 7, [], PART_SIZE);
      const { summary } = await publishImage(store, raw(id, 0), await fileSource(file), {
        ...calm,
        partSize: undefined,
        streams: 8,
      });
      assert.deepEqual([summary.lane, summary.streams, summary.parts], tool ? [tool, 1, 4] : ['ranges', 4, 4]);
      await fetchImage(store, id, m => sinkInto(folder.path, m.size), calm);
      assert.deepEqual(await readFile(join(folder.path, 'arrived')), await readFile(file));
    });

    it(tool ? 'makes holes of parts of zeros' : 'neither moves nor stores parts of zeros', async () => {
      await using folder = await tempFolder();
      const file = join(folder.path, 'image');
      await makeImage(file, 8 * PART + 5, [0, 3, 4, 7, 8], PART);
      const up = await publishImage(store, raw(id, 0), await fileSource(file), calm);
      const moved = tool ? 8 * PART + 5 : 4 * PART;
      assert.deepEqual([up.summary.zeroParts, up.summary.moved], [5, moved]);
      const down = await fetchImage(store, id, m => sinkInto(folder.path, m.size), calm);
      assert.equal(down.summary.moved, moved);
      const [image, arrived] = await Promise.all([file, join(folder.path, 'arrived')].map(copy => readFile(copy)));
      assert.deepEqual(arrived, image);
      assert.ok((await stat(join(folder.path, 'arrived'))).blocks * 512 < 5 * PART, 'what arrived has holes');
      const data = [1, 2, 5, 6].map(part => image!.subarray(part * PART, (part + 1) * PART));
      assert.deepEqual(await target.readObject(objectOf(id)), up.manifest.packed ? Buffer.concat(data) : image);
      if (!tool) assert.ok((await target.stored(objectOf(id))) < 5 * PART, 'what is stored is no larger than the data');
    });

    it('tells progress in bytes up to the size', async () => {
      await using folder = await tempFolder();
      await makeImage(join(folder.path, 'image'), 4 * PART, [1], PART);
      const seen: number[] = [];
      const progress = (done: number, total: number): void => void (seen.push(done), assert.equal(total, 4 * PART));
      await publishImage(store, raw(id, 0), await fileSource(join(folder.path, 'image')), { ...calm, progress });
      assert.equal(seen.at(-1), 4 * PART);
      assert.deepEqual(
        seen,
        seen.toSorted((a, b) => a - b),
      );
    });

    it('shows an object only once it is published', async () => {
      const path = `images/${id}/image.raw`;
      const sink = await store.sink(path, 10, PART);
      await assert.rejects(store.source(path), coded('OBJECT_MISSING'));
      await sink.publish([ZERO]);
      assert.equal((await store.source(path)).size, sink.packs ? 0 : 10);
    });

    it('forgets an object whose writer gave up', async () => {
      const sink = await store.sink(`images/${id}/image.raw`, 10, PART);
      await sink.abort();
      assert.deepEqual(await target.files(), []);
    });

    it('removes what a writer that died had brought', async () => {
      const sink = await store.sink(objectOf(id), 2 * PART, PART);
      const dying = { ...sink, publish: () => Promise.resolve() };
      await transfer({ ...calm, source: gatedSource(2 * PART, 2 * PART), sink: dying });
      await assert.rejects(store.source(objectOf(id)), coded('OBJECT_MISSING'));
      assert.notDeepEqual(await target.files(), []);
      await removeImage(store, id);
      assert.deepEqual(await target.files(), []);
    });

    it('stops an upload that is cancelled in the middle, and keeps nothing of it', async () => {
      const source = gatedSource(8 * PART, 3 * PART);
      const cancel = new AbortController();
      const upload = publishImage(store, raw(id, 0), source, { ...calm, signal: cancel.signal });
      await Promise.race([source.gate.reached(), upload]);
      cancel.abort(new CisternError('CANCELLED', 'the user said so'));
      await assert.rejects(upload, coded('CANCELLED', /the user said so/));
      assert.deepEqual(await target.files(), []);
    });

    it('keeps nothing of an upload that is cancelled when its bytes are there, but not its manifest', async () => {
      const cancel = new AbortController();
      const progress = (done: number, total: number): void => (done === total ? cancel.abort() : undefined);
      const upload = publishImage(store, raw(id, 0), gatedSource(PART, PART), { ...calm, signal: cancel.signal, progress });
      await assert.rejects(upload, { name: 'AbortError' });
      assert.deepEqual(await target.files(), []);
    });

    it('stops a download that is cancelled in the middle, and publishes nothing', async () => {
      await publishImage(store, raw(id, 0), gatedSource(8 * PART, 8 * PART), calm);
      const sink = gatedSink(3 * PART);
      const cancel = new AbortController();
      const download = fetchImage(store, id, sink, { ...calm, signal: cancel.signal });
      await Promise.race([sink.gate.reached(), download]);
      cancel.abort();
      await assert.rejects(download, { name: 'AbortError' });
      assert.deepEqual(sink.ended, ['abort']);
    });

    it('does not even begin when it was cancelled before', async () => {
      const options = { ...calm, signal: AbortSignal.abort() };
      await assert.rejects(publishImage(store, raw(id, 0), gatedSource(PART, PART), options), { name: 'AbortError' });
      assert.deepEqual(await target.files(), []);
    });

    it('gives an upload up that stalls', async () => {
      const upload = publishImage(store, raw(id, 0), gatedSource(8 * PART, 2 * PART), { ...calm, stallSeconds: 0.5 });
      await assert.rejects(upload, coded('TRANSFER_STALLED', /gated source.*no byte moved for 0\.5 s/));
      assert.deepEqual(await target.files(), []);
    });

    it('replaces what an earlier upload of the image left', async () => {
      await store.sink(`images/${id}/image.raw`, 10, PART);
      await publishImage(store, raw(id, 0), gatedSource(PART, PART), calm);
      assert.deepEqual(await target.files(), [objectOf(id), manifestOf(id)]);
    });

    it('overwrites a small object whole', async () => {
      const path = `images/${id}/manifest.json`;
      await store.write(path, Buffer.from('a first one, longer'));
      await store.write(path, Buffer.from('a second one'));
      assert.equal((await store.read(path, 100)).toString(), 'a second one');
      assert.equal((await target.files()).length, 1);
    });

    it('refuses to read a small object that is not small', async () => {
      await store.write(`images/${id}/manifest.json`, Buffer.alloc(101));
      await assert.rejects(store.read(`images/${id}/manifest.json`, 100), coded('MANIFEST_INVALID', /101 bytes/));
    });

    it('removes twice as well as once', async () => {
      await publishImage(store, raw(id, 0), gatedSource(PART, PART), calm);
      await removeImage(store, id);
      await removeImage(store, id);
      await assert.rejects(readManifest(store, id), coded('OBJECT_MISSING'));
    });

    it('says which object is missing', async () => {
      const sink = gatedSink(0);
      await assert.rejects(fetchImage(store, id, sink, calm), coded('OBJECT_MISSING', new RegExp(id)));
      assert.deepEqual(sink.ended, ['abort']);
      await assert.rejects(store.source('images/x'), coded('OBJECT_MISSING', /images\/x/));
    });

    it('finds one flipped byte, names the part, and publishes nothing', async () => {
      await using folder = await tempFolder();
      await publishImage(store, raw(id, 0), gatedSource(4 * PART, 4 * PART), calm);
      await target.damage(objectOf(id), 2 * PART + 12345);
      const download = fetchImage(store, id, m => sinkInto(folder.path, m.size), calm);
      await assert.rejects(download, coded('DIGEST_MISMATCH', /part 2 of/));
      assert.deepEqual(await filesBelow(folder.path), []);
    });

    it('finds an object that lost its end', async () => {
      await publishImage(store, raw(id, 0), gatedSource(4 * PART, 4 * PART), calm);
      await target.shorten(objectOf(id), 3 * PART);
      const sink = gatedSink(8 * PART);
      await assert.rejects(
        fetchImage(store, id, sink, calm),
        coded('DIGEST_MISMATCH', new RegExp(`${3 * PART} bytes, its manifest says ${4 * PART}`)),
      );
      assert.deepEqual(sink.ended, ['abort']);
    });

    it('refuses a manifest that somebody changed', async () => {
      await publishImage(store, raw(id, 0), gatedSource(2 * PART, 2 * PART), calm);
      const manifest = JSON.parse((await target.readObject(manifestOf(id))).toString()) as { parts: string[] };
      manifest.parts[1] = 'zero';
      await target.writeObject(manifestOf(id), Buffer.from(JSON.stringify(manifest)));
      await assert.rejects(readManifest(store, id), coded('MANIFEST_INVALID', /digest/));
    });

    it('says shortly what is wrong with a manifest, however much is', async () => {
      await publishImage(store, raw(id, 0), gatedSource(2 * PART, 2 * PART), calm);
      const manifest = JSON.parse((await target.readObject(manifestOf(id))).toString()) as { parts: string[] };
      const strangeKeys = Object.fromEntries(Array.from({ length: 100_000 }, (_, i) => [`strange${i}`, 0]));
      for (const wrong of [{ parts: Array<string>(200_000).fill('none') }, strangeKeys]) {
        await target.writeObject(manifestOf(id), Buffer.from(JSON.stringify({ ...manifest, ...wrong })));
        await assert.rejects(readManifest(store, id), coded('MANIFEST_INVALID', /^[^]{20,4096}$/));
      }
    });

    for (const path of ['../outside', '/etc/passwd', 'images/../../x', 'images//x', 'images/.partial-x', '']) {
      it(`refuses the object path "${path}"`, async () => {
        await assert.rejects(store.source(path), coded('BAD_REQUEST'));
        await assert.rejects(store.write(path, Buffer.alloc(0)), coded('BAD_REQUEST'));
        await assert.rejects(store.remove(path), coded('BAD_REQUEST'));
      });
    }

    if (folder)
      it('removes a link below its root, not what it leads to', async () => {
        await using outside = await tempFolder();
        await writeFile(join(outside.path, 'precious'), 'x');
        await mkdir(join(target.root!, 'images', id), { recursive: true });
        await symlink(outside.path, join(target.root!, 'images', id, 'link'));
        await removeImage(store, id);
        assert.deepEqual(await filesBelow(outside.path), ['precious']);
      });

    it('says that it may not write', async () => {
      const { config, words } = target.locked;
      await using locked = await open(config).then(s => ({ store: s, [Symbol.asyncDispose]: () => s.close() }));
      await assert.rejects(locked.store.check(), coded('STORE_PERMISSION', words));
      await assert.rejects(locked.store.write(`images/${id}/x`, Buffer.alloc(1)), coded('STORE_PERMISSION', words));
    });

    it('says that its place is missing', async () => {
      const { config, words } = target.missing;
      const checking = open(config).then(async gone => {
        await using _closed = { [Symbol.asyncDispose]: () => gone.close() };
        await gone.check();
      });
      await assert.rejects(checking, coded('STORE_CONFIG', words));
    });

    it('says that it is full, and keeps nothing of the upload', async () => {
      await using small = await target.small();
      const full = await open(small.config);
      await using _closed = { [Symbol.asyncDispose]: () => full.close() };
      await assert.rejects(publishImage(full, raw(id, 0), gatedSource(16 * PART, 16 * PART), calm), coded('STORE_FULL'));
      assert.deepEqual(await small.files(), []);
    });

    it('passes what operators may try on their own', async function () {
      this.timeout(180_000);
      await using folder = await tempFolder();
      const outcomes = await runConformance(store, folder.path, never);
      const failed = outcomes.filter(one => !one.ok);
      assert.deepEqual(failed, []);
      assert.equal(outcomes.length, conformanceCases.length);
    });

    it('refuses a configuration with what it does not know, and names it', async () => {
      await assert.rejects(open({ ...target.config, colour: 'blue' }), coded('STORE_CONFIG', /colour/));
      for (const field of Object.keys(target.config))
        await assert.rejects(open({ ...target.config, [field]: {} }), coded('STORE_CONFIG', new RegExp(field)));
      if (target.root !== undefined)
        await assert.rejects(open({ ...target.config, path: 'relative' }), coded('STORE_CONFIG', /absolute path/));
    });
  });
}
