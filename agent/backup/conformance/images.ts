import { randomBytes } from 'node:crypto';
import { open, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { newId } from '../../../shared/id.ts';
import { fileSink, fileSource } from '../../transfer/file-end.ts';
import { fetchImage, listImages, publishImage, removeImage } from '../layout.ts';
import { type Case, type Ground, must, mustFail, PART } from './case.ts';

const pathOf = (id: string): string => `images/${id}/image.raw`;

/** A file of random bytes; `holes` are numbers of parts that are left out. No other part is all zeros, be it one byte long. */
async function makeFile({ folder }: Ground, size: number, holes: number[] = []): Promise<string> {
  const path = join(folder, newId());
  await using file = await open(path, 'wx', 0o600);
  await file.truncate(size);
  for (let at = 0, part = 0; at < size; at += PART, part++)
    if (!holes.includes(part)) await file.write(randomBytes(Math.min(PART, size - at)).fill(1, 0, 1), 0, undefined, at);
  return path;
}

const options = ({ signal }: Ground) => ({ streams: 2, stallSeconds: 60, signal });

async function thereAndBack(ground: Ground, size: number, holes: number[] = []): Promise<void> {
  const { store, folder } = ground;
  const id = newId();
  const file = await makeFile(ground, size, holes);
  const image = { id, format: 'raw' as const, virtualSize: size };
  const up = await publishImage(store, image, await fileSource(file), { ...options(ground), partSize: PART });
  must(up.summary.zeroParts === holes.length, `${up.summary.zeroParts} parts of zeros were left out, not ${holes.length}`);
  const [partial, final] = [join(folder, `${id}.partial`), join(folder, `${id}.back`)];
  const down = await fetchImage(store, id, manifest => fileSink({ partial, final, size: manifest.size }), options(ground));
  must(down.summary.moved === up.summary.moved, `${down.summary.moved} bytes came back, ${up.summary.moved} had gone there`);
  must((await readFile(final)).equals(await readFile(file)), 'what came back is not what had gone there');
  must((await listImages(store)).includes(id), 'the image is not listed');
  await rm(final);
}

export const imageCases: Case[] = [
  { name: 'takes an image of several parts and gives it back', run: ground => thereAndBack(ground, 2 * PART + 7) },
  { name: 'takes an image with parts of zeros and gives it back', run: ground => thereAndBack(ground, 3 * PART, [0, 2]) },
  { name: 'takes an image of one byte and gives it back', run: ground => thereAndBack(ground, 1) },
  { name: 'takes an image of nothing and gives it back', run: ground => thereAndBack(ground, 0) },
  {
    name: 'shows an image only once it is whole, and forgets one whose upload was given up',
    run: async ({ store }) => {
      const path = pathOf(newId());
      const sink = await store.sink(path, PART, PART);
      await mustFail('OBJECT_MISSING', 'reading an object that is not whole', () => store.source(path));
      await sink.abort();
      await mustFail('OBJECT_MISSING', 'reading an object that was given up', () => store.source(path));
    },
  },
  {
    name: 'removes what an upload that was cancelled has left',
    run: async ground => {
      const id = newId();
      const cancel = new AbortController();
      const source = await fileSource(await makeFile(ground, 2 * PART));
      const signal = AbortSignal.any([ground.signal, cancel.signal]);
      const progress = (done: number): void => (done > 0 ? cancel.abort(new Error('cancelled by the test')) : undefined);
      const image = { id, format: 'raw' as const, virtualSize: 0 };
      const uploading = publishImage(ground.store, image, source, { ...options(ground), signal, progress, partSize: PART });
      const failed = await uploading.then(
        () => false,
        () => true,
      );
      ground.signal.throwIfAborted();
      must(failed, 'the upload went on after it was cancelled');
      await removeImage(ground.store, id);
      must((await ground.store.list(`images/${id}`)).length === 0, 'something of the upload is left after it was removed');
    },
  },
  {
    name: 'removes an image twice as well as once',
    run: async ground => {
      const id = newId();
      const source = await fileSource(await makeFile(ground, 1));
      await publishImage(ground.store, { id, format: 'raw', virtualSize: 1 }, source, { ...options(ground), partSize: PART });
      await removeImage(ground.store, id);
      await removeImage(ground.store, id);
      await mustFail('OBJECT_MISSING', 'reading an image that was removed', () => ground.store.source(pathOf(id)));
      must(!(await listImages(ground.store)).includes(id), 'the image is still listed');
    },
  },
];
