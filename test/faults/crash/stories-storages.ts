import { done, WAIT } from '../../servers/cistern.ts';
import { POOL, SPARE, SPARE_CLUSTER, type Stage, STORES } from './stage.ts';
import type { Story } from './story.ts';

/** A local primary storage in a folder of each host's own, beside that of the house. */
const newPool = (name: string) => ({ name, type: 'local', config: { path: `/proc/self/cwd/pool-${name}` } });

const isAttached = async (stage: Stage): Promise<boolean> => {
  const { clusterIds } = await stage.api.getPrimaryStorage({ params: { ref: POOL } });
  const lab = (await stage.api.listClusters()).items.find(cluster => cluster.name === SPARE_CLUSTER);
  return lab !== undefined && clusterIds.includes(lab.id);
};
const isAdded = async (stage: Stage): Promise<boolean> => (await stage.hosts()).some(host => host.name === SPARE);

/** Brings the spare host in, or out, and its cluster to the pool, or away. */
async function setSpare(stage: Stage, wanted: { added: boolean; attached?: boolean }): Promise<void> {
  const { api } = stage;
  const { url, token } = stage.service(SPARE);
  if (!(await isAdded(stage))) await done(api.addHost({ body: { name: SPARE, url, token, cluster: SPARE_CLUSTER } }, WAIT));
  const change = { params: { ref: POOL }, body: { cluster: SPARE_CLUSTER } };
  const attached = await isAttached(stage);
  if (wanted.attached === true && !attached) await done(api.attachPrimaryStorage(change, WAIT));
  if (wanted.attached === false && attached) await done(api.detachPrimaryStorage(change, WAIT));
  if (!wanted.added) await done(api.removeHost({ params: { ref: SPARE } }, WAIT));
}

export const storageStories: Story[] = [
  {
    title: 'add a primary storage',
    prepare: async (stage, name) => ({ start: options => stage.api.addPrimaryStorage({ body: newPool(name) }, options) }),
  },
  {
    title: 'delete a primary storage',
    async prepare(stage, name) {
      await done(stage.api.addPrimaryStorage({ body: newPool(name) }, WAIT));
      await done(stage.api.addToCache({ body: { image: 'data', primaryStorage: name } }, WAIT));
      return { start: options => stage.api.deletePrimaryStorage({ params: { ref: name } }, options) };
    },
  },
  {
    title: 'refresh a primary storage',
    prepare: async stage => ({ start: options => stage.api.refreshPrimaryStorage({ params: { ref: POOL } }, options) }),
  },
  {
    title: 'attach a primary storage',
    needs: 'spare',
    async prepare(stage) {
      await setSpare(stage, { added: true, attached: false });
      return {
        start: options => stage.api.attachPrimaryStorage({ params: { ref: POOL }, body: { cluster: SPARE_CLUSTER } }, options),
      };
    },
  },
  {
    title: 'detach a primary storage',
    needs: 'spare',
    async prepare(stage) {
      await setSpare(stage, { added: true, attached: true });
      return {
        start: options => stage.api.detachPrimaryStorage({ params: { ref: POOL }, body: { cluster: SPARE_CLUSTER } }, options),
      };
    },
  },
  {
    title: 'add a backup storage',
    async prepare(stage, name) {
      const body = { name, type: 'dir', config: { path: stage.house.cistern.dir(`store-${name}`) } };
      return { start: options => stage.api.addBackupStorage({ body }, options) };
    },
  },
  {
    title: 'refresh a backup storage',
    async prepare(stage, _name, random) {
      const ref = random.pick(STORES);
      return { start: options => stage.api.refreshBackupStorage({ params: { ref } }, options) };
    },
  },
  {
    title: 'delete a backup storage',
    async prepare(stage, name) {
      const path = stage.house.cistern.dir(`store-${name}`);
      await done(stage.api.addBackupStorage({ body: { name, type: 'dir', config: { path } } }, WAIT));
      return { start: options => stage.api.deleteBackupStorage({ params: { ref: name } }, options) };
    },
  },
  {
    title: 'add a host',
    needs: 'spare',
    async prepare(stage) {
      await setSpare(stage, { added: false });
      const { url, token } = stage.service(SPARE);
      return { start: options => stage.api.addHost({ body: { name: SPARE, url, token, cluster: SPARE_CLUSTER } }, options) };
    },
  },
  {
    title: 'reconnect a host',
    prepare: async (stage, _name, random) => {
      const ref = random.pick(['host-1', 'host-2']);
      return { start: options => stage.api.reconnectHost({ params: { ref } }, options) };
    },
  },
  {
    title: 'remove a host',
    needs: 'spare',
    async prepare(stage, _name, random) {
      await setSpare(stage, { added: true, attached: random.chance(0.5) });
      return { start: options => stage.api.removeHost({ params: { ref: SPARE } }, options) };
    },
  },
];
