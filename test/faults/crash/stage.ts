/** The installation that seeds play on: two hosts with a pool, a spare one, two folders and an SSH server as backup storage. */
import { copyFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import type { Host, Volume } from '../../../shared/model.ts';
import { done, type Service, WAIT } from '../../servers/cistern.ts';
import { type House, makeDisk, MiB, NO_SCHEDULES, openHouse } from '../../e2e/house.ts';

export const POOL = 'fast';
/** Backup storages, the SSH server last. */
export const STORES = ['depot', 'shelf', 'vault'] as const;
/** The hosts that always belong to cistern; the spare one comes and goes. */
export const HOSTS = ['host-1', 'host-2'] as const;
export const SPARE = 'host-3';
export const SPARE_CLUSTER = 'lab';
/** Raw disks that images are made of, in bytes. */
const DISKS = { small: 8 * MiB, large: 24 * MiB };
export type Disk = keyof typeof DISKS;

export interface Stage extends AsyncDisposable {
  house: House;
  api: House['api'];
  /** The file of a raw disk. */
  disk(name: Disk): string;
  /** What a guest must find: the raw disk for each image by name, and for each volume by id that is no mere clone of an image. */
  images: Map<string, string>;
  volumes: Map<string, string>;
  service(host: string): Service;
  /** Folder of a host's part of a pool. */
  pool(host: string, pool?: string): string;
  /** Folder of a backup storage. */
  store(name: string): string;
  /** A clone of the root image that has been written to, whose disk is none of ours. */
  golden: Volume;
  hosts(): Promise<Host[]>;
}

export async function openStage(): Promise<Stage> {
  await using stack = new AsyncDisposableStack();
  const house = stack.use(
    await openHouse({
      hosts: [...HOSTS],
      sshd: true,
      controller: {
        heartbeatSeconds: 0.5,
        taskRetrySeconds: 4,
        trashHours: 1000,
        schedules: { ...NO_SCHEDULES, trash: '* * * * * *' },
      },
    }),
  );
  const { api, cistern } = house;
  await cistern.addAgent(SPARE);
  await done(api.removeHost({ params: { ref: SPARE } }, WAIT));
  const vault = join(house.sshd.path, 'vault');
  mkdirSync(vault);
  for (const name of STORES) await (name === 'vault' ? house.addSftp(name, vault) : house.addStore(name));
  await house.addPool(POOL, { overcommit: 1000 });

  const disk = (name: Disk): string => join(house.files, `${name}.raw`);
  for (const [name, size] of Object.entries(DISKS)) await makeDisk(disk(name as Disk), size, name);
  const stage: Stage = {
    house,
    api,
    disk,
    images: new Map(),
    volumes: new Map(),
    service: host => cistern.agents[[...HOSTS, SPARE].indexOf(host as typeof SPARE)]!,
    pool: (host, pool = POOL) => join(cistern.folder, host, `pool-${pool}`),
    store: name => (name === 'vault' ? vault : join(cistern.folder, `store-${name}`)),
    golden: undefined as unknown as Volume,
    hosts: async () => (await api.listHosts()).items,
    [Symbol.asyncDispose]: () => owner.disposeAsync(),
  };
  await bringImage(stage, 'root', 'large', ['depot', 'vault']);
  await bringImage(stage, 'data', 'small', ['shelf'], 'data');
  stage.golden = await writeGolden(stage);
  const owner = stack.move();
  return stage;
}

/** Imports a raw disk as an image, and waits for it. */
export async function bringImage(
  stage: Stage,
  name: string,
  disk: Disk,
  stores: string[],
  media: 'root' | 'data' = 'root',
): Promise<void> {
  const body = {
    name,
    media,
    source: { type: 'url' as const, url: `${stage.house.web.url}/${disk}.raw` },
    backupStorages: stores,
  };
  await done(stage.api.importImage({ body }, WAIT));
  stage.images.set(name, stage.disk(disk));
}

/** A clone with a piece of its own, and the raw disk that it must be. */
async function writeGolden(stage: Stage): Promise<Volume> {
  await done(stage.api.createVolumes({ body: { name: 'golden', image: 'root', host: 'host-1' } }, WAIT));
  const volume = await stage.api.getVolume({ params: { ref: 'golden' } });
  const truth = join(stage.house.files, 'golden.raw');
  copyFileSync(stage.disk('large'), truth);
  for (const [file, format] of [
    [join(stage.pool('host-1'), volume.path!), 'qcow2'],
    [truth, 'raw'],
  ] as const)
    // prettier-ignore
    await execa('qemu-io', ['-f', format, '-c', 'write -P 0x5a 1M 3M', '--', file]);
  stage.volumes.set(volume.id, truth);
  return volume;
}
