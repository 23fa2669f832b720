/** Every backup storage with every primary storage and with every other backup storage. No pair is written by hand. */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { BackupStore } from '../../agent/backup/driver.ts';
import { copyImage, fetchImage, publishImage } from '../../agent/backup/layout.ts';
import { openBackupStore } from '../../agent/backup/registry.ts';
import { compare, convert } from '../../agent/host/qemu-img.ts';
import { fileSink, fileSource } from '../../agent/transfer/file-end.ts';
import { newId } from '../../shared/id.ts';
import { tempFolder } from './backup-image.ts';
import { backupTargets, type BackupTarget } from './backup-targets.ts';
import { rbdPlaces } from './primary-rbd-target.ts';
import { make, MiB, TARGETS, volumes } from './primary-steps.ts';
import { exec, newPool, signal } from './primary-targets.ts';

const VIRTUAL = 16 * MiB;
/** Every storage takes parts of this size. */
const options = { streams: 2, stallSeconds: 30, signal, partSize: 5 * MiB };
const names = Object.keys(backupTargets);
let ceph: Awaited<ReturnType<typeof rbdPlaces>>;
const POOLS = [...TARGETS, { name: 'rbd', place: () => ceph.place() }];

async function sha256(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

describe('pairs of storages', () => {
  const stores = new Map<string, BackupStore>();
  const open = new AsyncDisposableStack();
  let folder: string;
  let digest: string;
  let original: string;
  const ids = new Map<string, string>();

  before('each backup storage takes an image', async function () {
    this.timeout(240_000);
    folder = open.use(await tempFolder()).path;
    ceph = open.use(await rbdPlaces());
    const [data, image] = [join(folder, 'data'), join(folder, 'image')];
    original = image;
    await writeFile(data, randomBytes(11 * MiB));
    await exec('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', data, image]);
    await exec('qemu-img', ['resize', '-q', '-f', 'qcow2', image, String(VIRTUAL)]);
    digest = await sha256(image);
    for (const name of names) {
      const kind = backupTargets[name]!;
      const target: BackupTarget = open.use(await kind.start());
      const store = await openBackupStore({ id: newId(), type: kind.type ?? name, config: target.config }, signal);
      open.defer(() => store.close());
      stores.set(name, store);
      const id = newId();
      ids.set(name, id);
      await publishImage(store, { id, format: 'qcow2', virtualSize: VIRTUAL }, await fileSource(image), options);
    }
  });
  after(() => open.disposeAsync());

  for (const name of names)
    for (const { name: where, place: makePlace } of POOLS)
      it(`${name} to ${where} and back, by way of a clone`, async function () {
        this.timeout(120_000);
        await using place = await makePlace();
        const { pool } = await newPool(place);
        const [store, id] = [stores.get(name)!, ids.get(name)!];
        const { manifest } = await fetchImage(store, id, found => pool.cacheSink({ ...found }), options);
        const shows = async (image: string, published: string) => {
          const [spec] = volumes(1);
          await make(pool, [spec!], VIRTUAL, image, published);
          const layer = await pool.volumeFile(spec!.id, spec!.layerId);
          assert.ok(await compare(layer, { path: original, format: 'qcow2', backing: null }), 'the clone shows other bytes');
          return layer;
        };
        await using layer = await shows(id, manifest.digest);
        const flat = join(place.outside, 'flat');
        await convert({ source: layer, target: flat, targetFormat: 'qcow2', virtualSize: VIRTUAL });
        const copy = { id: newId(), format: 'qcow2' as const, virtualSize: VIRTUAL };
        await publishImage(store, copy, await fileSource(flat), options);
        const again = await fetchImage(store, copy.id, found => pool.cacheSink({ ...found }), options);
        await using _ = await shows(copy.id, again.manifest.digest);
      });

  for (const from of names)
    for (const to of names.filter(other => other !== from))
      it(`${from} to ${to}`, async function () {
        this.timeout(120_000);
        await using arrived = await tempFolder();
        const id = ids.get(from)!;
        const { manifest } = await copyImage(stores.get(from)!, stores.get(to)!, { id }, () => undefined, options);
        const final = join(arrived.path, 'image');
        await fetchImage(stores.get(to)!, id, ({ size }) => fileSink({ partial: `${final}.part`, final, size }), options);
        assert.equal(await sha256(final), digest);
        assert.equal(manifest.id, id);
      });
});
