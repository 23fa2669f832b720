/** Compares what a guest would see with what it must see, byte by byte. */
import { join } from 'node:path';
import { execa } from 'execa';
import { POOL, type Stage } from './stage.ts';

/** What was compared in this house and was right. Nothing changes it, so it is compared again only at the end of the house. */
export type Compared = Set<string>;

interface Pair {
  key: string;
  disk: { path: string; format: string };
  truth: string;
}

/** Of a batch of clones only so many are read. */
const SAMPLE = 2;

/** Compares every image on each of its backup storages and in each cache, and clones; a complaint for each that differs. */
export async function wrongBytes(stage: Stage, compared: Compared): Promise<string[]> {
  const pairs = (await pairsOf(stage)).filter(pair => !compared.has(pair.key));
  const complaints: string[] = [];
  for (const { key, disk, truth } of pairs) {
    const { exitCode, stdout, stderr } = await execa(
      'qemu-img',
      ['compare', '-f', disk.format, '-F', 'raw', '--', disk.path, truth],
      { reject: false },
    );
    if (exitCode === 0) compared.add(key);
    else complaints.push(`${key}: ${disk.path} is not ${truth}: ${stdout}${stderr}`.trim());
  }
  return complaints;
}

async function pairsOf(stage: Stage): Promise<Pair[]> {
  const { api } = stage;
  const pairs: Pair[] = [];
  const images = (await api.listImages({ query: { limit: 1000 } })).items;
  const stores = new Map((await api.listBackupStorages()).items.map(store => [store.id, store.name]));
  const hosts = new Map((await stage.hosts()).map(host => [host.id, host.name]));
  const pool = await api.getPrimaryStorage({ params: { ref: POOL } });
  const truths = new Map<string, string>();
  for (const image of images) {
    const truth = stage.images.get(image.name);
    if (truth === undefined) continue;
    truths.set(image.id, truth);
    const file = join(image.id, `image.${image.format}`);
    for (const { backupStorageId } of image.replicas) {
      const path = join(stage.store(stores.get(backupStorageId)!), 'images', file);
      pairs.push({ key: `image ${image.name} on ${stores.get(backupStorageId)}`, disk: { path, format: image.format }, truth });
    }
  }
  const cache = (await api.listCache({ query: { limit: 1000, primaryStorage: POOL } })).items;
  for (const { imageId, hostId } of cache) {
    const image = images.find(one => one.id === imageId);
    const truth = truths.get(imageId);
    if (image === undefined || truth === undefined) continue;
    const path = join(stage.pool(hosts.get(hostId!)!), 'cache', imageId, `image.${image.format}`);
    pairs.push({ key: `image ${image.name} cached on ${hosts.get(hostId!)}`, disk: { path, format: image.format }, truth });
  }
  const volumes = (await api.listVolumes({ query: { limit: 1000, primaryStorage: POOL } })).items;
  const taken = new Map<string, number>();
  for (const volume of volumes) {
    const truth = stage.volumes.get(volume.id) ?? truths.get(volume.imageId ?? '');
    const batch = volume.name.replace(/-\d+$/, '');
    const seen = taken.get(batch) ?? 0;
    if (volume.primaryStorageId !== pool.id || volume.status !== 'ready' || truth === undefined || seen >= SAMPLE) continue;
    taken.set(batch, seen + 1);
    const path = join(stage.pool(hosts.get(volume.hostId!)!), volume.path!);
    pairs.push({ key: `volume ${volume.name}`, disk: { path, format: 'qcow2' }, truth });
  }
  return pairs;
}
