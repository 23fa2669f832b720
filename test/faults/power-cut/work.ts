/** What runs while the power is cut, and how to see that nothing of what it had done is lost. */
import assert from 'node:assert/strict';
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { parseManifest } from '../../../agent/backup/manifest.ts';
import { digestOf } from '../../../agent/transfer/parts.ts';
import { CisternError } from '../../../shared/errors.ts';
import type { Operation } from '../../../shared/model.ts';
import type { Places } from '../../e2e/ledger.ts';
import { type House, makeDisk, MiB, sameContent } from '../../e2e/house.ts';
import { done, WAIT } from '../../servers/cistern.ts';

export interface Setup {
  house: House;
  places: Places;
  pool: string;
  store: string;
  /** The disk that every image shows, where no cut reaches it. */
  source: string;
}

/** A number below `n`, the same row of them for the same seed (mulberry32). */
export function randomFrom(seed: number): (n: number) => number {
  let state = seed;
  return n => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % n;
  };
}

export async function furnish(house: House, outside: string): Promise<Setup> {
  const source = await makeDisk(join(outside, 'disk.raw'), 6 * MiB, 'power');
  cpSync(source, join(house.files, 'disk.raw'));
  const store = await house.addStore('depot');
  const pool = (await house.addPool('fast'))(1);
  const { id: poolId } = await house.api.getPrimaryStorage({ params: { ref: 'fast' } });
  const { id: storeId } = await house.api.getBackupStorage({ params: { ref: 'depot' } });
  const { id: hostId } = await house.api.getHost({ params: { ref: 'host-1' } });
  const state = (name: string) => join(house.cistern.folder, name, 'state');
  const places: Places = {
    controller: state('controller'),
    agents: [state('host-1')],
    pools: { [`${poolId}/${hostId}`]: pool },
    stores: { [storeId]: store },
  };
  await done(house.importFile('disk.raw', { name: 'base' }));
  return { house, places, pool, store, source };
}

/** What a client was told to be done. */
export interface Told {
  /** Ids of operations. */
  succeeded: string[];
  /** Bytes that a volume was grown to. */
  sizes: Record<string, number>;
}

/** Three hands that do random work until `enough`; returns how many operations ended. */
export async function work(
  { house: { api, web } }: Setup,
  random: (n: number) => number,
  told: Told,
  enough: () => boolean,
): Promise<number> {
  let made = 0;
  let ended = 0;
  const some = <T>(list: T[]): T | undefined => list[random(Math.max(1, list.length))];
  const volumes = async () => (await api.listVolumes({ query: { limit: 1000 } })).items;
  const images = async () => (await api.listImages()).items.filter(one => one.name !== 'base');
  const deeds: (() => Promise<Operation | undefined>)[] = [
    () => api.importImage({ body: { name: `i${made++}`, source: { type: 'url', url: `${web.url}/disk.raw` } } }, WAIT),
    () => api.createVolumes({ body: { name: `v${made++}`, image: 'base', count: 1 + random(4) } }, WAIT),
    async () => {
      const volume = some(await volumes());
      return volume && api.deleteVolumes({ body: { volumes: [volume.id] } }, WAIT);
    },
    () => api.emptyTrash({ body: {} }, WAIT),
    async () => {
      const image = some(await images());
      return image && api.createVolumes({ body: { name: `w${made++}`, image: image.id } }, WAIT);
    },
    async () => {
      const image = some(await images());
      return image && api.deleteImage({ params: { ref: image.id } }, WAIT);
    },
    async () => {
      const volume = some(await volumes());
      return volume && api.uploadVolume({ params: { ref: volume.id }, body: { name: `u${made++}` } }, WAIT);
    },
    async () => {
      const volume = some(await volumes());
      if (!volume) return undefined;
      const size = volume.size + MiB;
      const grown = await api.resizeVolume({ params: { ref: volume.id }, body: { size } }, WAIT);
      if (grown.state === 'succeeded') told.sizes[volume.id] = size;
      return grown;
    },
  ];
  const hand = async (): Promise<void> => {
    while (!enough()) {
      // two hands may reach for the same thing, and one of them is refused
      const operation = await some(deeds)!().catch(
        (error: unknown) => void assert.ok(error instanceof CisternError, String(error)),
      );
      if (operation?.state === 'succeeded') told.succeeded.push(operation.id);
      ended++;
    }
  };
  await Promise.all([hand(), hand(), hand()]);
  return ended;
}

/** Fails where an operation that a client was told to have succeeded is not known to have, or a volume is smaller than was told. */
export function allTold({ places, pool }: Setup, { succeeded, sizes }: Told): void {
  const rows = readRows(places.controller);
  const known = new Set(rows.succeeded.map(({ id }) => id));
  assert.deepEqual(succeeded.filter(id => !known.has(id)), [], 'what was said to have succeeded is forgotten'); // prettier-ignore
  for (const { id, layer_id: layer } of rows.volumes) {
    const header = readFileSync(join(pool, 'volumes', id!, `${layer}.qcow2`)).subarray(0, 32);
    const size = Number(header.readBigUInt64BE(24)); // qcow2 specification: size
    assert.ok(size >= (sizes[id!] ?? 0), `volume ${id} was grown to ${sizes[id!]} bytes and has ${size}`);
  }
}

/** Fails unless everything that the database calls ready is there, whole and byte for byte; returns how much that was. */
export async function allReady({ places, pool, store, source }: Setup): Promise<number> {
  const truth = { path: source, format: 'raw' };
  const rows = readRows(places.controller);
  for (const { image_id: image } of rows.replicas) {
    const folder = join(store, 'images', image!);
    const manifest = parseManifest(readFileSync(join(folder, 'manifest.json')), folder, image!);
    const bytes = readFileSync(join(folder, `image.${manifest.format}`));
    assert.equal(bytes.length, manifest.size, folder);
    manifest.parts.forEach((part, i) => {
      const at = i * manifest.partSize;
      assert.equal(digestOf(bytes.subarray(at, at + manifest.partSize)), part, `part ${i} of ${folder}`);
    });
    await sameContent({ path: join(folder, `image.${manifest.format}`), format: manifest.format }, truth);
  }
  for (const { image_id: image } of rows.cache)
    await sameContent({ path: join(pool, 'cache', image!, 'image.qcow2'), format: 'qcow2' }, truth);
  for (const { id, layer_id: layer } of rows.volumes)
    await sameContent({ path: join(pool, 'volumes', id!, `${layer}.qcow2`), format: 'qcow2' }, truth);
  return rows.replicas.length + rows.cache.length + rows.volumes.length;
}

/** Of a copy, so that reading recovers nothing in the controller's own files. */
function readRows(state: string) {
  const copy = mkdtempSync(join(tmpdir(), 'rows-'));
  try {
    // the second is gone after a clean stop
    for (const name of ['cistern.db', 'cistern.db-wal'])
      if (existsSync(join(state, name))) cpSync(join(state, name), join(copy, name));
    using db = new DatabaseSync(join(copy, 'cistern.db'));
    const read = (sql: string) => db.prepare(sql).all() as Record<string, string>[];
    return {
      replicas: read(`select image_id from replicas where status = 'ready'`),
      cache: read(`select image_id from cache_entries where status = 'ready'`),
      volumes: read(`select id, layer_id from volumes where status = 'ready'`),
      succeeded: read(`select id from operations where state = 'succeeded'`),
    };
  } finally {
    rmSync(copy, { recursive: true });
  }
}
