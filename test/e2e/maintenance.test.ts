/** Primary storages that are put into maintenance, and those that get full. Needs root, for a small disk. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import type { Operation } from '../../shared/model.ts';
import { type Disk, openDisk } from '../servers/disk.ts';
import { done, WAIT } from '../servers/cistern.ts';
import { failsWith, type House, makeDisk, MiB, NO_SCHEDULES, openHouse, until } from './house.ts';

describe('a primary storage', function () {
  this.timeout(120_000);
  let house: House;
  let api: House['api'];
  let disk: Disk;

  before(async () => {
    const schedules = { ...NO_SCHEDULES, reconnect: '* * * * * *' };
    house = await openHouse({ hosts: ['host-1'], controller: { schedules, physicalWarning: 0.5, physicalThreshold: 0.9 } });
    ({ api } = house);
    await house.addStore('depot');
    await house.addPool('fast');
    await makeDisk(join(house.files, 'disk.raw'), 8 * MiB, 'maintenance');
    await done(house.importFile('disk.raw', { name: 'base' }));
    await done(create('kept'));
    disk = await openDisk('ext4', { size: 64 });
    const config = { path: join(disk.path, 'pool') };
    await done(api.addPrimaryStorage({ body: { name: 'small', type: 'local', config } }, WAIT));
  });
  after(async () => {
    await house?.[Symbol.asyncDispose]();
    await disk?.[Symbol.asyncDispose]();
  });

  const create = (name: string, ask = WAIT): Promise<Operation> =>
    api.createVolumes({ body: { name, image: 'base', primaryStorage: 'fast' } }, ask);
  const metricsText = async () => {
    const { url, token } = house.cistern.controller;
    return (await fetch(`${url}/metrics`, { headers: { authorization: `Bearer ${token}` } })).text();
  };
  const fast = () => api.getPrimaryStorage({ params: { ref: 'fast' } });
  const maintain = (body: { cancel?: boolean; deadlineSeconds?: number } = {}) =>
    api.maintainPrimaryStorage({ params: { ref: 'fast' }, body });
  const enable = async () => {
    await api.updatePrimaryStorage({ params: { ref: 'fast' }, body: { state: 'enabled' } });
    await until('it is connected', async () => (await fast()).status === 'connected');
  };
  /** Holds the agent still while `work` runs: what it was told goes on after that. */
  async function whileHeld<T>(work: () => Promise<T>): Promise<T> {
    const { pid } = house.cistern.agents[0]!;
    process.kill(pid, 'SIGSTOP');
    try {
      return await work();
    } finally {
      process.kill(pid, 'SIGCONT');
    }
  }

  it('in maintenance takes no work and is left by its hosts, until it is enabled again', async () => {
    const { output } = await done(api.maintainPrimaryStorage({ params: { ref: 'fast' }, body: {} }, WAIT));
    assert.equal((output!.disconnected as string[]).length, 1);
    const { state, status, reason } = await fast();
    assert.deepEqual([state, status, reason], ['maintenance', 'disconnected', 'the storage is in maintenance']);
    await assert.rejects(create('refused'), failsWith('NO_STORAGE', /fast is in state maintenance/));
    const inMaintenance = failsWith('WRONG_STATE', /fast is in maintenance/);
    await assert.rejects(api.resizeVolume({ params: { ref: 'kept' }, body: { size: 64 * MiB } }), inMaintenance);
    await assert.rejects(api.deleteVolume({ params: { ref: 'kept' } }), inMaintenance);
    await assert.rejects(api.refreshPrimaryStorage({ params: { ref: 'fast' } }), inMaintenance);
    await done(api.maintainPrimaryStorage({ params: { ref: 'fast' }, body: {} }, WAIT));
    await enable();
    await done(create('after'));
  });

  it('waits for work under way before its hosts leave it', async () => {
    const [creating, maintaining] = await whileHeld(async () => {
      const began = await create('waited-for', { headers: { Prefer: 'wait=0' } });
      return [began, await maintain()];
    });
    assert.equal((await house.ended(creating.id)).state, 'succeeded');
    assert.equal((await house.ended(maintaining.id)).state, 'succeeded');
    await enable();
    assert.equal((await api.getVolume({ params: { ref: 'waited-for' } })).status, 'ready');
  });

  it('cancels work under way where asked to', async () => {
    const [creating, maintaining] = await whileHeld(async () => {
      const began = await create('given-up', { headers: { Prefer: 'wait=0' } });
      const maintaining = await maintain({ cancel: true });
      await until('it is to be cancelled', async () => {
        const { state } = await api.getOperation({ params: { ref: began.id } });
        return state === 'cancelling';
      });
      return [began, maintaining];
    });
    assert.equal((await house.ended(creating.id)).state, 'cancelled');
    const { state, output } = await house.ended(maintaining.id);
    assert.deepEqual([state, output?.cancelled], ['succeeded', [creating.id]]);
    await enable();
  });

  it('stays as it was where work does not end in time', async () => {
    const [creating, maintaining] = await whileHeld(async () => {
      const began = await create('slow', { headers: { Prefer: 'wait=0' } });
      const { id } = await maintain({ deadlineSeconds: 1 });
      return [began, await house.ended(id)];
    });
    assert.equal(maintaining.error?.code, 'TIMEOUT');
    assert.match(maintaining.error.detail, new RegExp(creating.id));
    assert.equal((await fast()).state, 'enabled');
    assert.equal((await house.ended(creating.id)).state, 'succeeded');
  });

  it('that gets full is told of by one event at each threshold, and by one once it has room again', async () => {
    const { id } = await api.getPrimaryStorage({ params: { ref: 'small' } });
    const look = async () => {
      await done(api.refreshPrimaryStorage({ params: { ref: 'small' } }, WAIT));
      return (await api.getPrimaryStorage({ params: { ref: 'small' } })).capacity!.level;
    };
    const told = async () =>
      (await api.listEvents({ query: { limit: 1000 } })).items
        .filter(event => event.resource?.id === id && /\.(warn|stop|room)$/.test(event.type))
        .map(event => event.type.split('.')[1]);
    assert.equal(await look(), 'ok');
    {
      using _half = await disk.fill(6 * 1024); // 24 of 64 MiB are left
      assert.deepEqual([await look(), await look()], ['warn', 'warn']);
    }
    {
      using _full = await disk.fill(64);
      assert.deepEqual([await look(), await look()], ['stop', 'stop']);
      const refused = api.createVolumes({ body: { name: 'none', size: MiB, primaryStorage: 'small' } });
      await assert.rejects(refused, failsWith('NO_CAPACITY', /physical threshold of 0.9/));
      const metrics = await metricsText();
      assert.match(metrics, /^cistern_controller_primary_storage_level\{primary_storage="small",host="host-1"\} 2$/m);
    }
    assert.equal(await look(), 'ok');
    assert.deepEqual(await told(), ['warn', 'stop', 'room']);
  });
});
