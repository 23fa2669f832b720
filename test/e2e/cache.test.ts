import assert from 'node:assert/strict';
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import { CisternError } from '../../shared/errors.ts';
import type { Operation } from '../../shared/model.ts';
import { done, WAIT } from '../servers/cistern.ts';
import { failsWith, type House, makeDisk, MiB, openHouse, sameContent, until } from './house.ts';
import { ask } from './http.ts';

const HOSTS = ['host-1', 'host-2'] as const;

describe('the image cache, with two hosts that have a pool each', () => {
  let house: House;
  let api: House['api'];
  let pool: (host: number) => string;
  let disk: string;

  before(async function () {
    this.timeout(60_000);
    house = await openHouse({ hosts: [...HOSTS] });
    api = house.api;
    await house.addStore('depot');
    pool = await house.addPool('fast');
    disk = await makeDisk(join(house.files, 'disk.raw'), 8 * MiB, 'cache');
    await done(house.importFile('disk.raw', { name: 'base' }));
  });
  after(() => house?.[Symbol.asyncDispose]());

  const clone = (name: string, host: string) =>
    api.createVolumes({ body: { name, image: 'base', primaryStorage: 'fast', host } }, WAIT);
  const evict = (host?: string) => api.evictFromCache({ body: { image: 'base', primaryStorage: 'fast', host } }, WAIT);
  const prefetch = (host?: string) => api.addToCache({ body: { image: 'base', primaryStorage: 'fast', host } }, WAIT);
  const listed = async () => (await api.listCache({ query: { image: 'base' } })).items;
  const fills = (operations: Operation[]) =>
    operations.flatMap(one => one.steps).filter(step => step.name.startsWith('fill the image cache') && step.state === 'done').map(step => step.result as { alreadyThere: boolean }); // prettier-ignore
  const hostIds = async () => Promise.all(HOSTS.map(async ref => (await api.getHost({ params: { ref } })).id));

  async function fillTasks(host: number): Promise<number> {
    const { text } = await ask(house.cistern.agents[host]!, 'GET', '/metrics');
    return Number(/^cistern_agent_tasks_total\{kind="cache.fill",state="succeeded"\} (\d+)$/m.exec(text)?.[1] ?? 0);
  }

  async function removeVolumes(): Promise<void> {
    const volumes = (await api.listVolumes({ query: { limit: 1000 } })).items.map(volume => volume.id);
    if (volumes.length > 0) await done(api.deleteVolumes({ body: { volumes } }, WAIT));
    await done(api.emptyTrash({ body: {} }, WAIT));
  }

  /** What the cache is said to hold is what lies there. */
  async function checkCache(): Promise<void> {
    const ids = await hostIds();
    const { id } = await api.getImage({ params: { ref: 'base' } });
    const entries = await listed();
    for (const [i, hostId] of ids.entries()) {
      const said = entries.find(entry => entry.hostId === hostId)?.status;
      assert.ok(said === 'ready' || said === undefined, `host ${i + 1} is left with an entry that is ${said}`);
      assert.equal(existsSync(join(pool(i + 1), 'cache', id)), said === 'ready', `host ${i + 1} is said to have it: ${said}`);
    }
  }

  it('is filled by one transfer for each pool, though 40 volumes are asked for at once', async () => {
    const operations = await Promise.all(Array.from({ length: 40 }, (_, i) => done(clone(`many-${i}`, HOSTS[i % 2]!))));
    assert.equal(fills(operations).length, 2);
    assert.ok(fills(operations).every(fill => !fill.alreadyThere));
    assert.deepEqual([await fillTasks(0), await fillTasks(1)], [1, 1]);
    assert.deepEqual((await listed()).map(entry => [entry.status, entry.volumes]), [['ready', 20], ['ready', 20]]); // prettier-ignore
    for (const [i, name] of ['many-0', 'many-1'].entries()) {
      const volume = await api.getVolume({ params: { ref: name } });
      assert.equal(volume.hostId, (await hostIds())[i]);
      await sameContent(house.volumeFile(pool(i + 1), volume), { path: disk, format: 'raw' });
    }
    await checkCache();
  });

  it('keeps no promise of room once it is filled', async () => {
    const { hosts } = await api.getPrimaryStorage({ params: { ref: 'fast' } });
    for (const { capacity } of hosts) {
      assert.equal(capacity!.reserved, 0);
      assert.ok(capacity!.cache > 0);
      assert.equal(capacity!.provisioned, 20 * 8 * MiB);
    }
  });

  it('is not evicted from one host because it is free on the other', async () => {
    const volumes = (await api.listVolumes({ query: { host: 'host-1' } })).items.map(volume => volume.id);
    await done(api.deleteVolumes({ body: { volumes } }, WAIT));
    await done(api.emptyTrash({ body: {} }, WAIT));
    await assert.rejects(evict(), failsWith('IN_USE', /many-1/));
    assert.equal((await listed()).every(entry => entry.status === 'ready'), true); // prettier-ignore
    await done(evict('host-1'));
    assert.deepEqual((await listed()).map(entry => entry.hostId), [(await hostIds())[1]]); // prettier-ignore
    await checkCache();
  });

  it('is given to volumes that waited when the one that was filling it is cancelled', async () => {
    const [agent] = house.cistern.agents;
    process.kill(agent!.pid, 'SIGSTOP');
    let first: Operation;
    let others: Promise<Operation>[];
    try {
      first = await api.addToCache({ body: { image: 'base', primaryStorage: 'fast', host: 'host-1' } });
      others = [1, 2, 3].map(i => clone(`waited-${i}`, 'host-1'));
      await until('the others wait', async () => {
        const { items } = await api.listOperations({ query: { kind: 'volume.create', state: 'running' } });
        return items.length === 3 && items;
      });
      await api.cancelOperation({ params: { ref: first.id } });
    } finally {
      process.kill(agent!.pid, 'SIGCONT');
    }
    assert.equal((await house.ended(first.id)).state, 'cancelled');
    const created = await Promise.all(others.map(done));
    assert.equal(fills(created).length, 1);
    await checkCache();
  });

  it('forgets all that was claimed for a prefetch to both hosts which is cancelled at the first', async () => {
    await done(house.importFile('disk.raw', { name: 'claimed' }));
    const { agents } = house.cistern;
    for (const { pid } of agents) process.kill(pid, 'SIGSTOP');
    let id: string;
    try {
      ({ id } = await api.addToCache({ body: { image: 'claimed', primaryStorage: 'fast' } }));
      await api.cancelOperation({ params: { ref: id } });
    } finally {
      for (const { pid } of agents) process.kill(pid, 'SIGCONT');
    }
    assert.equal((await house.ended(id)).state, 'cancelled');
    const { id: imageId } = await api.getImage({ params: { ref: 'claimed' } });
    const entries = (await api.listCache()).items.filter(entry => entry.imageId === imageId);
    assert.deepEqual(entries, []);
  });

  it('is kept on the second host when its eviction is cancelled at the first, and on that one too unless it was just gone', async () => {
    const claimed = { image: 'claimed', primaryStorage: 'fast' };
    await done(api.addToCache({ body: claimed }, WAIT));
    const { agents } = house.cistern;
    for (const { pid } of agents) process.kill(pid, 'SIGSTOP');
    let id: string;
    try {
      ({ id } = await api.evictFromCache({ body: claimed }));
      await api.cancelOperation({ params: { ref: id } });
    } finally {
      for (const { pid } of agents) process.kill(pid, 'SIGCONT');
    }
    assert.equal((await house.ended(id)).state, 'cancelled');
    const { items } = await api.listCache({ query: { image: 'claimed' } });
    assert.ok(items.every(entry => entry.status === 'ready'));
    const [first, second] = await hostIds();
    assert.deepEqual(items.map(entry => entry.hostId).filter(hostId => hostId !== first), [second]); // prettier-ignore
    await checkCache();
    await done(api.evictFromCache({ body: claimed }, WAIT));
  });

  it('still has an image that was asked for again before its eviction reached it', async () => {
    await removeVolumes();
    await done(prefetch());
    const [agent] = house.cistern.agents;
    // the eviction hangs on the first host, so that it has not begun on the second
    process.kill(agent!.pid, 'SIGSTOP');
    let evicting: Operation;
    try {
      evicting = await api.evictFromCache({ body: { image: 'base', primaryStorage: 'fast' } });
      await done(prefetch('host-2'));
    } finally {
      process.kill(agent!.pid, 'SIGCONT');
    }
    assert.equal((await house.ended(evicting.id)).state, 'succeeded');
    await checkCache();
    await done(clone('after-all', 'host-2'));
    await sameContent(house.volumeFile(pool(2), await api.getVolume({ params: { ref: 'after-all' } })), {
      path: disk,
      format: 'raw',
    });
  });

  it('fetches an image again that somebody removed from the pool, once the pool was measured', async () => {
    await removeVolumes();
    await done(prefetch());
    const { id } = await api.getImage({ params: { ref: 'base' } });
    rmSync(join(pool(1), 'cache', id), { recursive: true });
    await done(api.refreshPrimaryStorage({ params: { ref: 'fast' } }, WAIT));
    assert.deepEqual((await listed()).map(entry => entry.hostId), [(await hostIds())[1]]); // prettier-ignore
    await done(clone('mended', 'host-1'));
    await sameContent(house.volumeFile(pool(1), await api.getVolume({ params: { ref: 'mended' } })), {
      path: disk,
      format: 'raw',
    });
  });

  it('breaks no volume, however prefetching, cloning and evicting meet', async () => {
    await removeVolumes();
    const outcomes = await Promise.allSettled(
      Array.from({ length: 45 }, async (_, i) => {
        const host = HOSTS[i % 2]!;
        const starts = [() => prefetch(host), () => clone(`chaos-${i}`, host), () => evict(host)];
        const operation = await starts[i % 3]!();
        return { operation, name: i % 3 === 1 ? `chaos-${i}` : undefined };
      }),
    );
    for (const outcome of outcomes) {
      if (outcome.status === 'fulfilled') {
        const { operation, name } = outcome.value;
        if (name !== undefined) assert.equal(operation.state, 'succeeded', `${name}: ${operation.error?.detail}`);
        else if (operation.state === 'failed')
          assert.ok(['IN_USE', 'BUSY'].includes(operation.error!.code), operation.error!.detail);
      } else {
        const { code, message } = outcome.reason as CisternError;
        assert.ok(['IN_USE', 'NOT_FOUND'].includes(code), `${code}: ${message}`);
      }
    }
    await checkCache();
    const volumes = (await api.listVolumes()).items;
    assert.equal(volumes.length, 15);
    const ids = await hostIds();
    for (const volume of volumes) {
      assert.equal(volume.status, 'ready');
      const { path } = house.volumeFile(pool(ids.indexOf(volume.hostId!) + 1), volume);
      await execa('qemu-img', ['check', '-q', '-f', 'qcow2', '--', path]);
      await execa('qemu-io', ['-r', '-f', 'qcow2', '-c', 'read 0 8M', '--', path]);
    }
  });
});
