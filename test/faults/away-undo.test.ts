/** A host that goes away under a delete or a resize: the operation ends soon, and what only the host can tell is seen to when it is back. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import type { Operation } from '../../shared/model.ts';
import { failsWith, type House, MiB, NO_SCHEDULES, openHouse, until } from '../e2e/house.ts';
import { done, type Service, WAIT } from '../servers/cistern.ts';
import { argv, workersOf } from './crash/blow.ts';

describe('a host that goes away under work on a volume', () => {
  let house: House;
  let api: House['api'];
  let pool: string;
  let poolId: string;
  let host: Service;

  before(async function () {
    this.timeout(60_000);
    house = await openHouse({ hosts: ['host-1'], controller: { taskRetrySeconds: 2, schedules: NO_SCHEDULES } });
    api = house.api;
    host = house.cistern.agents[0]!;
    pool = (await house.addPool('fast'))(1);
    poolId = (await api.getPrimaryStorage({ params: { ref: 'fast' } })).id;
    await done(api.createVolumes({ body: { name: 'vm', size: MiB, primaryStorage: 'fast' } }, WAIT));
  });
  after(() => house?.[Symbol.asyncDispose]());

  const volume = () => api.getVolume({ params: { ref: 'vm' } });

  /** Begins an operation while the worker of the pool stands still; returns the operation's id and the worker's. */
  async function beginStill(start: () => Promise<Operation>): Promise<{ id: string; pid: number }> {
    const pid = await until('the worker of the pool', async () =>
      (await workersOf(host.pid)).find(one => argv(one).includes(poolId)),
    );
    process.kill(pid, 'SIGSTOP');
    const { id } = await start();
    await until('the task', async () => (await api.getOperation({ params: { ref: id } })).steps.some(step => step.state === 'running')); // prettier-ignore
    return { id, pid };
  }

  /** The operation that `start` begins, while the worker of the pool stands still and then its host dies. */
  async function cutOff(start: () => Promise<Operation>): Promise<Operation> {
    const { id } = await beginStill(start);
    await host.kill();
    return house.ended(id);
  }

  it('lets a delete end, keeps others from the volume, and brings it back when the host is back', async function () {
    this.timeout(120_000);
    const { id } = await volume();
    const ended = await cutOff(() => api.deleteVolume({ params: { ref: 'vm' } }));
    assert.deepEqual([ended.state, ended.error?.code], ['failed', 'HOST_UNREACHABLE']);
    assert.equal((await volume()).status, 'deleting');
    await assert.rejects(api.deleteVolume({ params: { ref: 'vm' } }), failsWith('WRONG_STATE', /is deleting/));
    renameSync(join(pool, 'volumes', id), join(pool, 'trash', id)); // so far it had come, for all that anybody knows
    await house.cistern.controller.kill();
    await house.cistern.controller.start();
    await host.start();
    await until('the volume is back', async () => (await volume()).status === 'ready');
    assert.ok(existsSync(join(pool, 'volumes', id)));
  });

  it('lets a resize end, and tells the size that the volume has when the host is back', async function () {
    this.timeout(120_000);
    const ended = await cutOff(() => api.resizeVolume({ params: { ref: 'vm' }, body: { size: 4 * MiB } }));
    assert.deepEqual([ended.state, ended.error?.code], ['failed', 'HOST_UNREACHABLE']);
    assert.deepEqual([(await volume()).status, (await volume()).size], ['ready', MiB]);
    const { path, format } = house.volumeFile(pool, await volume());
    await execa('qemu-img', ['resize', '-q', '-f', format, path, String(4 * MiB)]); // so far it had come
    await host.start();
    await until('the size that it has', async () => (await volume()).size === 4 * MiB);
    await done(api.resizeVolume({ params: { ref: 'vm' }, body: { size: 8 * MiB } }, WAIT));
    await done(api.deleteVolume({ params: { ref: 'vm' } }, WAIT));
  });

  describe('or whose pool is not there any more', () => {
    const poolFile = (): string => join(pool, 'pool.json');
    const away = (): string => join(house.cistern.folder, 'pool.json');
    const create = (name: string) => done(api.createVolumes({ body: { name, size: MiB, primaryStorage: 'fast' } }, WAIT));

    /** The pool is put right, and the host asked again. */
    async function mend(): Promise<void> {
      renameSync(away(), poolFile());
      await done(api.refreshPrimaryStorage({ params: { ref: 'fast' } }, WAIT));
    }
    const comeBack = async (): Promise<void> => {
      await host.kill();
      await host.start();
    };

    before(async function () {
      this.timeout(60_000);
      for (const name of ['vm', 'other']) await create(name);
      await done(api.deleteVolume({ params: { ref: 'other' } }, WAIT));
    });

    it('keeps in the trash what is to be brought back from there, when the trash is emptied', async function () {
      this.timeout(120_000);
      const { id } = await volume();
      await cutOff(() => api.deleteVolume({ params: { ref: 'vm' } }));
      renameSync(join(pool, 'volumes', id), join(pool, 'trash', id));
      renameSync(poolFile(), away());
      const told = house.cistern.controller.log.length;
      await host.start();
      await until('it was asked in vain', () =>
        house.cistern.controller.log.slice(told).some(line => line.includes('sweeping up failed')),
      );
      await mend();
      await done(api.emptyTrash({ body: {} }, WAIT));
      assert.deepEqual(readdirSync(join(pool, 'trash')), [id]);
      await comeBack();
      await until('the volume is back', async () => (await volume()).status === 'ready');
      assert.ok(existsSync(join(pool, 'volumes', id)));
    });

    it('lets a delete end, and brings the volume back when the pool is', async function () {
      this.timeout(120_000);
      const { id } = await volume();
      const ended = await cutAndMoved(
        () => api.deleteVolume({ params: { ref: 'vm' } }),
        () => renameSync(join(pool, 'volumes', id), join(pool, 'trash', id)),
      );
      assert.deepEqual([ended.state, ended.error?.code], ['failed', 'POOL_IDENTITY']);
      assert.equal((await volume()).status, 'deleting');
      await mend();
      await comeBack();
      await until('the volume is back', async () => (await volume()).status === 'ready');
      assert.ok(existsSync(join(pool, 'volumes', id)));
    });

    it('lets a resize end, and tells the size that the volume has when the pool is back', async function () {
      this.timeout(120_000);
      const { path, format } = house.volumeFile(pool, await volume());
      const ended = await cutAndMoved(
        () => api.resizeVolume({ params: { ref: 'vm' }, body: { size: 4 * MiB } }),
        () => execa('qemu-img', ['resize', '-q', '-f', format, path, String(4 * MiB)]),
      );
      assert.deepEqual([ended.state, ended.error?.code], ['failed', 'POOL_IDENTITY']);
      await mend();
      await comeBack();
      await until('the size that it has', async () => (await volume()).size === 4 * MiB);
    });

    /** The operation that `start` begins: its worker dies when it has come as far as `soFar` does, and the next one finds no pool. */
    async function cutAndMoved(start: () => Promise<Operation>, soFar: () => unknown): Promise<Operation> {
      const { id, pid } = await beginStill(start);
      await soFar();
      renameSync(poolFile(), away());
      process.kill(pid, 'SIGKILL');
      return house.ended(id);
    }
  });
});
