import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { agentRoutes } from '../../shared/contract/agent.ts';
import { createClient } from '../../shared/http/client.ts';
import { done, WAIT } from '../servers/cistern.ts';
import { testClock } from '../servers/clock.ts';
import { type House, makeDisk, MiB, openHouse, until } from '../e2e/house.ts';

const DAY = 86_400_000;
const YEARS = 3650 * DAY;
const EVERY_SECOND = '* * * * * *';

describe('clocks that jump by ten years', () => {
  const folder = mkdtempSync(join(tmpdir(), 'cistern-clock-'));
  const clocks = { controller: testClock(join(folder, 'controller')), agents: testClock(join(folder, 'agents')) };
  let house: House;
  let api: House['api'];
  let pool: string;

  async function open(trashHours: number): Promise<void> {
    clocks.controller.shift(0);
    clocks.agents.shift(3 * DAY); // hosts and controller never agreed
    const schedules = {
      capacity: EVERY_SECOND,
      reconnect: EVERY_SECOND,
      trash: EVERY_SECOND,
      cache: EVERY_SECOND,
      prune: EVERY_SECOND,
    };
    house = await openHouse({
      controller: { schedules, trashHours, operationDays: 1 },
      env: { controller: clocks.controller.env, agents: clocks.agents.env },
    });
    api = house.api;
    await house.addStore('depot');
    pool = (await house.addPool('fast'))(1);
    await makeDisk(join(house.files, 'disk.raw'), 8 * MiB, 'clock');
    await done(house.importFile('disk.raw', { name: 'base' }));
  }
  const close = async () => house?.[Symbol.asyncDispose]();
  after(() => rmSync(folder, { recursive: true }));

  const volumes = async () => (await api.listVolumes()).items.map(volume => volume.name);
  const create = (name: string) => done(api.createVolumes({ body: { name, image: 'base', primaryStorage: 'fast' } }, WAIT));
  const trash = () => readdirSync(join(pool, 'trash'));

  /** Waits until the regular work has been done again from now on: the host was asked for it. */
  async function regularWork(): Promise<void> {
    const agent = house.cistern.agents[0]!;
    const there = createClient(agentRoutes, { baseUrl: agent.url, token: agent.token });
    try {
      const measured = async () =>
        (await there.listTasks()).items.filter(task => task.kind === 'pool.usage').map(task => task.id);
      const before = new Set(await measured());
      await until('the pool is measured again', async () => (await measured()).filter(id => !before.has(id)).length >= 3);
    } finally {
      there.close();
    }
  }

  describe('with a day in the trash', () => {
    before(async function () {
      this.timeout(60_000);
      await open(24);
    });
    after(close);

    it('empty no trash, forget no history, and keep the order of things', async () => {
      await create('early');
      await create('gone');
      await done(api.deleteVolume({ params: { ref: 'gone' } }, WAIT));
      const there = trash();
      assert.equal(there.length, 1);
      const history = (await api.listOperations()).items.map(operation => operation.id);

      clocks.controller.shift(YEARS);
      await regularWork();
      assert.deepEqual(trash(), there, 'after the jump ahead');
      clocks.agents.shift(-YEARS);
      await create('ahead');
      clocks.controller.shift(-YEARS);
      await regularWork();
      await create('back');
      assert.deepEqual(trash(), there, 'after the jump back');
      assert.deepEqual(
        (await api.listTrash()).items.map(entry => entry.name),
        ['gone'],
      );
      assert.deepEqual(await volumes(), ['early', 'ahead', 'back'], 'ids sort as things were made');
      const now = (await api.listOperations()).items.map(operation => operation.id);
      assert.deepEqual(now.slice(-history.length), history, 'operations are kept, newest first');
    });

    it('take nothing from work under way, over restarts into other years', async () => {
      const [controller, agent] = [house.cistern.controller, house.cistern.agents[0]!];
      const before = await volumes();
      for (const [i, years] of [YEARS, -YEARS].entries()) {
        house.web.behave('/disk.raw', { bytesPerSecond: 2 * MiB, times: 1 });
        const source = { type: 'url' as const, url: `${house.web.url}/disk.raw` };
        const { id } = await api.importImage({ body: { name: `import-${i}`, source } });
        await until(
          'the download has begun',
          async () => (await api.getOperation({ params: { ref: id } })).progress?.stage === 'download',
        );
        clocks.controller.shift(years);
        clocks.agents.shift(-years);
        await controller.kill();
        await agent.kill();
        await Promise.all([controller.start(), agent.start()]);
        const ended = await house.ended(id);
        assert.equal(ended.state, 'succeeded', ended.error?.detail);
        await until(
          'the pool is back',
          async () => (await api.getPrimaryStorage({ params: { ref: 'fast' } })).status === 'connected',
        );
        await create(`after-${i}`);
      }
      assert.deepEqual(await volumes(), [...before, 'after-0', 'after-1']);
    });
  });

  describe('with three seconds in the trash', () => {
    before(async function () {
      this.timeout(60_000);
      await open(0.001);
    });
    after(close);

    it('keep no trash for ever', async () => {
      clocks.controller.shift(YEARS);
      await create('gone');
      await done(api.deleteVolume({ params: { ref: 'gone' } }, WAIT));
      clocks.controller.shift(-YEARS);
      clocks.agents.shift(-YEARS);
      await until('it is purged', async () => (await api.listTrash()).items.length === 0 && trash().length === 0);
    });
  });
});
