import { randomBytes } from 'node:crypto';
import { z } from 'zod';
import { CisternError, type ErrorCode } from '../../shared/errors.ts';
import { capacity } from '../ceph/capacity.ts';
import type { Sink } from '../transfer/ends.ts';
import type { BackupDriver, BackupStore } from './driver.ts';
import { probeName, staleProbes } from './probe.ts';
import { segmentsOf } from './paths.ts';
import { openCluster, type Cluster } from '../ceph/cluster.ts';
import { CephConfig, NAME, poolOf } from '../ceph/config.ts';
import { listImages, makeImage, removeImage, renameImage, sizeOf } from '../ceph/images.ts';
import { listObjects, readObject, removeObjects, writeObject } from '../ceph/objects.ts';
import { beginPartial } from '../ceph/partial.ts';
import { imageServer } from '../ceph/server.ts';

/** Between the segments of a path in a name: they do not contain it, and neither rbd nor qemu gives it a meaning. */
const JOIN = '+';
const PARTIAL = '.partial-';

const RbdConfig = CephConfig.extend({
  prefix: z.string().regex(NAME).optional().describe('with which the names of all images and objects begin'),
});
type RbdConfig = z.output<typeof RbdConfig>;

/** A pool of a Ceph cluster: an RBD image for each image, and a RADOS object for each small object. */
export const rbd: BackupDriver<RbdConfig> = {
  type: 'rbd',
  title: 'Pool of a Ceph cluster (RBD)',
  shared: true,
  config: RbdConfig,
  connect: async ({ config }, signal) => {
    signal.throwIfAborted();
    return openStore(await openCluster(config), config.prefix);
  },
};

function openStore(cluster: Cluster, prefix: string | undefined): BackupStore {
  const { config } = cluster;
  const keyOf = (path: string): string => [...(prefix === undefined ? [] : [prefix]), ...segmentsOf(path)].join(JOIN);
  const nameOf = (key: string): string => `rbd ${poolOf(config)}/${key}`;
  const all = async (): Promise<{ images: string[]; objects: string[] }> => {
    const [images, objects] = await Promise.all([listImages(cluster), listObjects(cluster)]);
    return { images, objects };
  };

  const sink = async (path: string, size: number, partSize: number): Promise<Sink> => {
    const key = keyOf(path);
    const partial = `${key}${PARTIAL}`;
    const journal = await beginPartial(cluster, partial, { size, partSize, tag: '' });
    const server = imageServer(cluster, partial, false, nameOf(key));
    const remove = async (): Promise<void> => {
      await journal.forget();
      await removeImage(cluster, partial);
    };
    return {
      name: nameOf(key),
      kept: journal.kept,
      arrived: journal.arrived,
      ranges: server.end,
      flush: journal.flush,
      publish: async () => {
        try {
          await journal.forget();
          await renameImage(cluster, partial, key);
        } catch (error) {
          await remove().catch(() => undefined); // the first failure is what counts; `remove` of the folder finds the rest
          throw error;
        }
      },
      abort: remove,
      park: () => Promise.resolve(),
    };
  };
  return {
    source: async path => {
      const key = keyOf(path);
      const size = await sizeOf(cluster, key);
      return { name: nameOf(key), size, ranges: imageServer(cluster, key, true, nameOf(key)).end };
    },
    sink,
    read: async (path, limit) => readObject(cluster, keyOf(path), limit),
    write: async (path, body) => writeObject(cluster, keyOf(path), body),
    list: async folder => {
      const begin = `${keyOf(folder)}${JOIN}`;
      const { images, objects } = await all();
      const below = [...images, ...objects].filter(name => name.startsWith(begin));
      return [...new Set(below.map(name => name.slice(begin.length).split(JOIN)[0]!))];
    },
    remove: async folder => {
      const key = keyOf(folder);
      const within = (name: string): boolean =>
        name === key || name.startsWith(`${key}${JOIN}`) || name.startsWith(`${key}${PARTIAL}`);
      const { images, objects } = await all();
      await removeObjects(cluster, objects.filter(within));
      for (const image of images.filter(within)) await removeImage(cluster, image);
    },
    check: async () => {
      await check(cluster, keyOf(probeName()));
      const { images, objects } = await all();
      await removeObjects(cluster, staleProbes(objects));
      for (const image of staleProbes(images)) await removeImage(cluster, image);
    },
    capacity: () => capacity(cluster),
    close: () => cluster.close(),
  };
}

const HOPELESS: ReadonlySet<ErrorCode> = new Set<ErrorCode>(['STORE_UNREACHABLE', 'STORE_AUTH', 'TOOL_MISSING']);

/** Both ways of a store must work: that of small objects and that of images. */
async function check(cluster: Cluster, probe: string): Promise<void> {
  const body = randomBytes(64);
  try {
    await writeObject(cluster, probe, body);
    const back = await readObject(cluster, probe, body.length);
    if (!back.equals(body))
      throw new CisternError('IO_ERROR', `reading a probe back from ${cluster.name}: it is not what was written`);
    await makeImage(cluster, probe, 1);
    const end = await imageServer(cluster, probe, false, probe).end(AbortSignal.timeout(60_000));
    await end.release();
  } catch (error) {
    // where writing does not work, removing does not either
    if (!(error instanceof CisternError) || !HOPELESS.has(error.code)) await clean(cluster, probe).catch(() => undefined);
    throw error;
  }
  await clean(cluster, probe);
}

async function clean(cluster: Cluster, probe: string): Promise<void> {
  await removeObjects(cluster, [probe]);
  await removeImage(cluster, probe);
}
