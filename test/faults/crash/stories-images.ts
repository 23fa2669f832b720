import { createReadStream, statSync } from 'node:fs';
import { done, WAIT } from '../../servers/cistern.ts';
import { bringImage, type Disk, HOSTS, POOL, STORES } from './stage.ts';
import type { Random } from './random.ts';
import type { Story } from './story.ts';

/** One or two backup storages; the SSH server, whose connections take a while, not too often. */
export const someStores = (random: Random): string[] => {
  const first = random.weigh({ depot: 4, shelf: 4, vault: 2 });
  return random.chance(0.3) ? [first, random.pick(STORES.filter(name => name !== first))] : [first];
};
export const someDisk = (random: Random): Disk => random.weigh({ small: 1, large: 2 });

export const imageStories: Story[] = [
  {
    title: 'import from a URL',
    async prepare(stage, name, random) {
      const disk = someDisk(random);
      const format = random.weigh({ qcow2: 4, raw: 1 });
      const backupStorages = someStores(random);
      stage.images.set(name, stage.disk(disk));
      const source = { type: 'url' as const, url: `${stage.house.web.url}/${disk}.raw` };
      return { start: options => stage.api.importImage({ body: { name, format, source, backupStorages } }, options) };
    },
  },
  {
    title: 'import by upload',
    async prepare(stage, name, random) {
      const path = stage.disk(someDisk(random));
      const backupStorages = someStores(random);
      stage.images.set(name, path);
      const { size } = statSync(path);
      return {
        start: options => stage.api.importImage({ body: { name, source: { type: 'upload', size }, backupStorages } }, options),
        meanwhile: async (operation, signal) => {
          const ref = operation.resources.find(resource => resource.kind === 'image')!.id;
          await stage.api.uploadImage({ params: { ref } }, { stream: createReadStream(path), length: size, signal });
        },
      };
    },
  },
  {
    title: 'import of an object',
    async prepare(stage, name, random) {
      const backupStorages = someStores(random);
      const image = await stage.api.getImage({ params: { ref: 'root' } });
      const backupStorage = random.pick(['depot', 'vault']);
      stage.images.set(name, stage.disk('large'));
      const source = { type: 'object' as const, backupStorage, path: `images/${image.id}/image.qcow2` };
      return { start: options => stage.api.importImage({ body: { name, source, backupStorages } }, options) };
    },
  },
  {
    title: 'delete an image',
    async prepare(stage, name, random) {
      await bringImage(stage, name, 'small', someStores(random));
      return { start: options => stage.api.deleteImage({ params: { ref: name } }, options) };
    },
  },
  {
    title: 'replicate an image',
    async prepare(stage, name, random) {
      const [first, ...others] = random.chance(0.5) ? STORES : [...STORES].reverse();
      await bringImage(stage, name, someDisk(random), [first!]);
      const backupStorages = random.chance(0.3) ? others : [random.pick(others)];
      return { start: options => stage.api.replicateImage({ params: { ref: name }, body: { backupStorages } }, options) };
    },
  },
  {
    title: 'delete a replica',
    async prepare(stage, name, random) {
      const store = random.pick(STORES);
      await bringImage(stage, name, 'small', [store, random.pick(STORES.filter(other => other !== store))]);
      return { start: options => stage.api.deleteReplica({ params: { ref: name, store } }, options) };
    },
  },
  {
    title: 'prefetch an image',
    async prepare(stage, name, random) {
      await bringImage(stage, name, someDisk(random), someStores(random));
      const host = random.chance(0.5) ? random.pick(HOSTS) : undefined;
      return {
        start: options => stage.api.addToCache({ body: { image: name, primaryStorage: POOL, ...(host && { host }) } }, options),
      };
    },
  },
  {
    title: 'evict an image',
    async prepare(stage, name, random) {
      await bringImage(stage, name, 'small', someStores(random));
      await done(stage.api.addToCache({ body: { image: name, primaryStorage: POOL } }, WAIT));
      return { start: options => stage.api.evictFromCache({ body: { image: name, primaryStorage: POOL } }, options) };
    },
  },
];
