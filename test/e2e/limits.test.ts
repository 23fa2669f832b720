import assert from 'node:assert/strict';
import { join } from 'node:path';
import type { Operation } from '../../shared/model.ts';
import { done, WAIT } from '../servers/cistern.ts';
import { type House, makeDisk, MiB, NO_SCHEDULES, openHouse, until } from './house.ts';

const HOSTS = ['host-1', 'host-2'];
/** Bytes a second: the image would take longer than a test may. */
const SLOW = 2 * MiB;

describe('the limits of a backup storage', () => {
  let house: House;
  let api: House['api'];

  before(async function () {
    this.timeout(60_000);
    house = await openHouse({ hosts: HOSTS, controller: { schedules: NO_SCHEDULES } });
    api = house.api;
    await house.addStore('depot');
    await house.addPool('fast');
    await makeDisk(join(house.files, 'disk.raw'), 96 * MiB, 'limits');
    await done(house.importFile('disk.raw', { name: 'base', format: 'raw' }));
  });
  after(() => house?.[Symbol.asyncDispose]());

  const limit = (limits: { bytesPerSecond?: number | null; transfers?: number | null }) =>
    api.updateBackupStorage({ params: { ref: 'depot' }, body: { limits } });
  const fetch = (host: string) => api.addToCache({ body: { image: 'base', primaryStorage: 'fast', host } });
  const look = ({ id }: Operation) => api.getOperation({ params: { ref: id } });
  /** Bytes that a download has read: as long as no part is whole, nothing was written, and what was read counts half. */
  const bytesRead = async (operation: Operation): Promise<number> => {
    const { progress } = await look(operation);
    return progress?.stage === 'download' ? 2 * progress.done : 0;
  };
  const isAt = (operation: Operation, stage: string) =>
    until(`the stage "${stage}"`, async () => (await look(operation)).progress?.stage === stage);

  it('are shown, changed one by one, and taken away', async () => {
    const limits = async () => (await api.getBackupStorage({ params: { ref: 'depot' } })).limits;
    assert.deepEqual(await limits(), { bytesPerSecond: null, transfers: null });
    await limit({ bytesPerSecond: SLOW });
    assert.deepEqual(await limits(), { bytesPerSecond: SLOW, transfers: null });
    assert.deepEqual((await limit({ transfers: 3 })).limits, { bytesPerSecond: SLOW, transfers: 3 });
    assert.deepEqual((await limit({ bytesPerSecond: null })).limits, { bytesPerSecond: null, transfers: 3 });
    await assert.rejects(limit({ bytesPerSecond: 1 }), /bytesPerSecond/);
  });

  it('hold for all hosts together, and what they are raised to holds for what runs already', async () => {
    await limit({ bytesPerSecond: SLOW });
    const began = performance.now();
    const fetches = await Promise.all(HOSTS.map(fetch));
    const read = await until('a good part of both images', async () => {
      const each = await Promise.all(fetches.map(bytesRead));
      const sum = each[0]! + each[1]!;
      return sum >= 16 * MiB && each.every(bytes => bytes > 0) && sum;
    });
    // until the first one hears of the second, it has the whole budget
    const allowed = (SLOW * (performance.now() - began)) / 1000 + 3 * MiB;
    assert.ok(read <= allowed, `${read} bytes were read, ${allowed} were allowed`);
    await limit({ bytesPerSecond: null });
    for (const { id } of fetches) assert.equal((await house.ended(id)).state, 'succeeded');
    await done(api.evictFromCache({ body: { image: 'base', primaryStorage: 'fast' } }, WAIT));
  }).timeout(60_000);

  it('let transfers wait in line, which can be cancelled, until there is a place', async () => {
    await limit({ bytesPerSecond: SLOW, transfers: 1 });
    const first = await fetch('host-1');
    await isAt(first, 'download');
    const second = await fetch('host-2');
    await isAt(second, 'wait for a place at depot');
    await api.cancelOperation({ params: { ref: second.id } });
    assert.equal((await house.ended(second.id)).state, 'cancelled');
    const third = await fetch('host-2');
    await isAt(third, 'wait for a place at depot');
    await limit({ transfers: 2 });
    await isAt(third, 'download');
    assert.equal((await look(first)).state, 'running');
    await limit({ transfers: 1, bytesPerSecond: null });
    for (const { id } of [first, third]) assert.equal((await house.ended(id)).state, 'succeeded');
  }).timeout(60_000);
});
