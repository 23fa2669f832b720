/** Who may write in the folder of a `dir` store puts links and pipes in its places while images go in, come out and are removed. */
import assert from 'node:assert/strict';
import { lstat, mkdir, mkdtemp, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { dir } from '../../agent/backup/dir.ts';
import { fetchImage, listImages, publishImage, readManifest, removeImage } from '../../agent/backup/layout.ts';
import { makeManifest, writeManifest } from '../../agent/backup/manifest.ts';
import { fileSource } from '../../agent/transfer/file-end.ts';
import { digestOf } from '../../agent/transfer/parts.ts';
import { transfer } from '../../agent/transfer/transfer.ts';
import { CisternError } from '../../shared/errors.ts';
import { newId } from '../../shared/id.ts';
import { filesBelow, PART, sinkInto } from './backup-image.ts';
import { exec } from './primary-targets.ts';
import { record, swapping } from './swapping.ts';

const ROUNDS = 20;
const signal = new AbortController().signal;
const calm = { streams: 2, stallSeconds: 20, signal };

/** As much as a part of nothing but this byte, so that who gets some of it shows it. */
const filled = (letter: string): Buffer => Buffer.alloc(PART, letter);
const OURS = 'o';
const SECRET = 's';

describe('backup storage: a dir store with links swapped in while the agent works', () => {
  let base: string;
  const at = (...names: string[]): string => join(base, ...names);
  beforeEach(async () => {
    base = await mkdtemp(join(tmpdir(), 'cistern-swaps-'));
    for (const folder of ['root', 'outside', 'spool']) await mkdir(at(folder));
  });
  afterEach(() => rm(base, { recursive: true, force: true }));

  it('lead it nowhere: nothing outside is made, changed, removed or read into an image', async function () {
    this.timeout(300_000);
    const store = await dir.connect({ id: newId(), config: { path: at('root') } }, signal);
    const [still, moving] = [newId(), newId()] as [string, string];
    const image = (id: string) => ({ id, format: 'raw' as const, virtualSize: PART });
    await writeFile(at('ours'), filled(OURS));
    const publish = async (id: string) => publishImage(store, image(id), await fileSource(at('ours')), calm);
    await publish(still);

    // outside lie other images with manifests that are right, under every name that the store knows
    for (const id of [still, moving])
      for (const folder of [`outside/images/${id}`, `outside/${id}`, 'outside']) {
        await mkdir(at(folder), { recursive: true });
        await writeFile(at(folder, 'image.raw'), filled(SECRET));
        const manifest = makeManifest({ ...image(still), id }, PART, [digestOf(filled(SECRET))], PART, false);
        await writeFile(at(folder, 'manifest.json'), writeManifest(manifest));
      }
    for (const name of (await readdir(at('outside'), { recursive: true })).reverse()) await utimes(at('outside', name), 1, 2);
    const before = await record(at('outside'));

    const names = ['images', `images/${still}`, `images/${moving}`].map(name => at('root', name));
    const files = [`images/${still}/*`, `images/${moving}/*`].map(name => at('root', name));
    const done: Record<string, number> = {};
    const work = async (what: string, step: () => Promise<unknown>): Promise<void> => {
      await step().then(
        () => (done[what] = (done[what] ?? 0) + 1),
        (error: unknown) => {
          assert.ok(error instanceof CisternError, `${what}: ${String((error as Error).stack)}`);
          assert.notEqual(error.code, 'TRANSFER_STALLED', `${what} waited for a pipe: ${error.message}`);
        },
      );
    };
    const arrive = async (what: string, move: (folder: string) => Promise<unknown>): Promise<void> => {
      const folder = await mkdtemp(at('spool', 'task-'));
      await work(what, () => move(folder));
      for (const file of await filesBelow(folder))
        assert.deepEqual(await readFile(join(folder, file)), filled(OURS), `${what} brought bytes from outside`);
      await rm(folder, { recursive: true });
    };
    {
      await using _swapper = await swapping(at('outside'), [...names, ...files]);
      for (let i = 0; i < ROUNDS; i++) {
        await work('publish', () => publish(moving));
        await work('list', () => listImages(store));
        await work('manifest', () => readManifest(store, still));
        await arrive('fetch', folder => fetchImage(store, still, m => sinkInto(folder, m.size), calm));
        await arrive('fetch of the new', folder => fetchImage(store, moving, m => sinkInto(folder, m.size), calm));
        await arrive('object', async folder => {
          const source = await store.source(`images/${still}/image.raw`);
          await transfer({ ...calm, source, sink: await sinkInto(folder, source.size) });
        });
        await work('check', () => store.check());
        await work('remove', () => removeImage(store, moving));
      }
    }
    assert.deepEqual(await record(at('outside')), before);
    // and what the store holds under these names, it holds itself
    for (const file of await filesBelow(at('root')))
      if ((await lstat(at('root', file))).isFile() && file.endsWith('image.raw'))
        assert.ok(!(await readFile(at('root', file))).includes(filled(SECRET)), file);
    assert.ok((done['check'] ?? 0) === ROUNDS && (done['manifest'] ?? 0) + (done['object'] ?? 0) > 0, JSON.stringify(done));
    console.log(`      done in spite of all, of ${ROUNDS}: ${JSON.stringify(done)}`);
  });

  it('refuses a pipe that took the place of what it is about to open, and does not wait for it', async () => {
    const store = await dir.connect({ id: newId(), config: { path: at('root') } }, signal);
    await writeFile(at('ours'), filled(OURS));
    const ours = await fileSource(at('ours'));
    const pipeAt = async (file: string): Promise<void> => {
      await rm(file);
      await exec('mkfifo', ['--', file]);
    };
    const refused = { name: 'CisternError', code: 'IO_ERROR' };

    await transfer({ ...calm, source: ours, sink: await store.sink('images/x/image.raw', PART, PART) });
    const source = await store.source('images/x/image.raw');
    await pipeAt(at('root/images/x/image.raw'));
    await assert.rejects(transfer({ ...calm, source, sink: await sinkInto(at('spool'), PART) }), refused);

    const sink = await store.sink('images/y/image.raw', PART, PART);
    await pipeAt(at('root/images/y', (await readdir(at('root/images/y')))[0]!));
    await assert.rejects(transfer({ ...calm, source: ours, sink }), refused);
    assert.deepEqual(await filesBelow(at('spool')), []);
  });
});
