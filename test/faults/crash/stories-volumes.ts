import { MiB } from '../../e2e/house.ts';
import { done, WAIT } from '../../servers/cistern.ts';
import type { Random } from './random.ts';
import { bringImage, HOSTS, POOL, type Stage } from './stage.ts';
import { someDisk, someStores } from './stories-images.ts';
import type { Story } from './story.ts';

const SIZE = 4 * MiB;

/** Volumes on some host; returns their ids. */
async function makeVolumes(stage: Stage, name: string, random: Random, count: number): Promise<string[]> {
  const image = random.chance(0.7) ? { image: random.pick(['root', 'data']) } : { size: SIZE };
  const made = await done(
    stage.api.createVolumes({ body: { name, count, primaryStorage: POOL, host: random.pick(HOSTS), ...image } }, WAIT),
  );
  return (made.output as { volumes: { id: string }[] }).volumes.map(volume => volume.id);
}

export const volumeStories: Story[] = [
  {
    title: 'create an empty volume',
    async prepare(stage, name, random) {
      const host = random.pick(HOSTS);
      return { start: options => stage.api.createVolumes({ body: { name, size: SIZE, primaryStorage: POOL, host } }, options) };
    },
  },
  {
    title: 'clone an image that is cached or not',
    async prepare(stage, name, random) {
      const host = random.pick(HOSTS);
      const image = random.pick(['root', 'data']);
      return { start: options => stage.api.createVolumes({ body: { name, image, primaryStorage: POOL, host } }, options) };
    },
  },
  {
    title: 'fetch a new image for many clones',
    async prepare(stage, name, random) {
      await bringImage(stage, `${name}-base`, someDisk(random), someStores(random));
      const body = { name, image: `${name}-base`, count: random.int(2, 24), primaryStorage: POOL, host: random.pick(HOSTS) };
      return { start: options => stage.api.createVolumes({ body }, options) };
    },
  },
  {
    title: 'grow a volume',
    async prepare(stage, name, random) {
      const [ref] = await makeVolumes(stage, name, random, 1);
      const { size } = await stage.api.getVolume({ params: { ref: ref! } });
      return { start: options => stage.api.resizeVolume({ params: { ref: ref! }, body: { size: size + 8 * MiB } }, options) };
    },
  },
  {
    title: 'delete a volume',
    async prepare(stage, name, random) {
      const [ref] = await makeVolumes(stage, name, random, 1);
      return { start: options => stage.api.deleteVolume({ params: { ref: ref! } }, options) };
    },
  },
  {
    title: 'delete many volumes',
    async prepare(stage, name, random) {
      const volumes = [
        ...(await makeVolumes(stage, `${name}-a`, random, random.int(2, 16))),
        ...(await makeVolumes(stage, `${name}-b`, random, random.int(2, 16))),
      ];
      return { start: options => stage.api.deleteVolumes({ body: { volumes } }, options) };
    },
  },
  {
    title: 'empty the trash',
    needs: 'trash',
    async prepare(stage, name, random) {
      const volumes = await makeVolumes(stage, name, random, random.int(1, 12));
      await done(stage.api.deleteVolumes({ body: { volumes } }, WAIT));
      return { start: options => stage.api.emptyTrash({ body: {} }, options) };
    },
  },
  {
    title: 'upload a volume as a template',
    needs: 'golden',
    async prepare(stage, name, random) {
      const body = { name, compress: random.chance(0.3), backupStorages: someStores(random) };
      stage.images.set(name, stage.volumes.get(stage.golden.id)!);
      return { start: options => stage.api.uploadVolume({ params: { ref: stage.golden.id }, body }, options) };
    },
  },
];
