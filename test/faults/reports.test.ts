/** What agents tell the controller goes through a network that doubles, delays, loses and repeats it, and comes from copies of agents. */
import assert from 'node:assert/strict';
import { cpSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Operation, Volume } from '../../shared/model.ts';
import { AgentProcess } from '../e2e/agent-process.ts';
import { type House, makeDisk, MiB, NO_SCHEDULES, openHouse, sameContent, until } from '../e2e/house.ts';
import { ask } from '../e2e/http.ts';
import { done, WAIT } from '../servers/cistern.ts';
import { MISCHIEF, type ReportProxy, startReportProxy } from '../servers/report-proxy.ts';
import { pick, randomOf } from './fuzz/random.ts';

const ROUNDS = 12;

describe('reports of agents', () => {
  let house: House;
  let api: House['api'];
  let proxy: ReportProxy;
  let pool: string;
  let disk: string;

  before(async function () {
    this.timeout(60_000);
    const seed = Number(process.env.CISTERN_SEED ?? Date.now() % 100_000);
    console.log(`    CISTERN_SEED=${seed} repeats the choices`);
    const random = randomOf(seed, 0);
    proxy = await startReportProxy(() => pick(random, MISCHIEF));
    house = await openHouse({ controller: { publicUrl: proxy.url, schedules: NO_SCHEDULES } });
    proxy.target = house.cistern.controller.url;
    api = house.api;
    await house.addStore('depot');
    pool = (await house.addPool('fast'))(1);
    disk = await makeDisk(join(house.files, 'disk.raw'), 8 * MiB, 'reports');
    await done(house.importFile('disk.raw', { name: 'base' }));
  });
  after(async () => {
    await house?.[Symbol.asyncDispose]();
    await proxy?.[Symbol.asyncDispose]();
  });

  const start = async (round: number): Promise<string[]> => {
    const clone = api.createVolumes({ body: { name: `set-${round}`, image: 'base', count: 3, primaryStorage: 'fast' } });
    const lone = api.createVolumes({ body: { name: `lone-${round}`, size: MiB, primaryStorage: 'fast' } });
    const source = { type: 'url' as const, url: `${house.web.url}/disk.raw` };
    const image = api.importImage({ body: { name: `image-${round}`, source } });
    return (await Promise.all([clone, lone, image])).map(operation => operation.id);
  };
  const ended = async (ids: string[]): Promise<Operation[]> => {
    const operations = await Promise.all(ids.map(house.ended));
    for (const { state, error } of operations) assert.equal(state, 'succeeded', JSON.stringify(error));
    return operations;
  };
  const volumes = async (): Promise<Volume[]> => (await api.listVolumes({ query: { limit: 1000 } })).items;
  const events = async (type: string) =>
    (await api.listEvents({ query: { limit: 1000 } })).items.filter(event => event.type === type);

  it('that come twice, late, again from before a restart, or not at all lose nothing and end nothing wrongly', async function () {
    this.timeout(240_000);
    const { controller, agents } = house.cistern;
    for (let round = 1; round <= ROUNDS; round++) {
      const ids = await start(round);
      if (round === 4) {
        await agents[0]!.kill();
        await agents[0]!.start();
      }
      if (round === 8) {
        await controller.kill();
        await controller.start();
      }
      await ended(ids);
      await done(api.deleteVolume({ params: { ref: `lone-${round}` } }, WAIT));
    }
    const there = await volumes();
    assert.equal(there.length, 3 * ROUNDS);
    assert.deepEqual(readdirSync(join(pool, 'volumes')).sort(), there.map(volume => volume.id).sort());
    assert.equal(readdirSync(join(pool, 'trash')).length, ROUNDS);
    await sameContent(house.volumeFile(pool, there[0]!), { path: disk, format: 'raw' });
    assert.deepEqual(await events('host.copied'), [], 'the host is taken for a copy of itself');
    console.log(`    ${JSON.stringify(proxy.counts)}`);
    for (const what of MISCHIEF) assert.ok(proxy.counts[what] > 0, `no batch was ${what}`);
    proxy.behave();
    await until('the agent keeps nothing that was taken', async () => {
      const { text } = await ask(agents[0]!, 'GET', '/metrics');
      return /^cistern_agent_reports_pending 0$/m.test(text);
    });
  });

  it('of a copy of the machine are refused, told of, and end none of its work', async function () {
    this.timeout(120_000);
    proxy.behave();
    house.web.behave('/disk.raw', { stallAfter: 2 * MiB, times: 1 });
    const source = { type: 'url' as const, url: `${house.web.url}/disk.raw` };
    const { id } = await api.importImage({ body: { name: 'under-way', source } });
    await until('the import is under way', async () => (await api.getOperation({ params: { ref: id } })).progress !== null);
    const folder = house.cistern.dir('copy');
    cpSync(join(house.cistern.folder, 'host-1/state'), join(folder, 'state'), {
      recursive: true,
      filter: path => !path.endsWith('.sock') && !path.includes('/spool/'),
    });
    // it finds the task interrupted, and would say so in the name of the first
    await using copy = await AgentProcess.start(folder);
    const [told] = await until(
      'the copy is told of',
      async () => (await events('host.copied')).length > 0 && events('host.copied'),
    );
    assert.match(told!.message, /host-1.*copy of its machine/);
    assert.ok(
      copy.log.some(line => line.includes('the one that answers for host')),
      'the copy does not say why',
    );
    const { state, steps } = await api.getOperation({ params: { ref: id } });
    assert.deepEqual([state, steps.filter(step => step.state === 'failed')], ['running', []]);
    assert.equal((await api.getHost({ params: { ref: 'host-1' } })).status, 'connected');
    await api.cancelOperation({ params: { ref: id } });
    assert.equal((await house.ended(id)).state, 'cancelled');
    await done(api.createVolumes({ body: { name: 'after', size: MiB, primaryStorage: 'fast' } }, WAIT));
  });
});
