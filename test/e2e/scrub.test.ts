import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { CacheEntry } from '../../shared/model.ts';
import { done, WAIT } from '../servers/cistern.ts';
import { testClock } from '../servers/clock.ts';
import { flipBit } from '../unit/damage.ts';
import { type House, makeDisk, MiB, NO_SCHEDULES, openHouse, sameContent, until } from './house.ts';

const WEEK = 7 * 86_400_000;

describe('the weekly look at cached images', () => {
  const folder = mkdtempSync(join(tmpdir(), 'cistern-scrub-'));
  const clock = testClock(join(folder, 'clock'));
  let house: House;
  let api: House['api'];
  let pool: (host: number) => string;
  let disk: string;

  before(async function () {
    this.timeout(60_000);
    const schedules = { ...NO_SCHEDULES, scrub: '23 2 * * 0' };
    house = await openHouse({ hosts: ['host-1', 'host-2'], controller: { schedules }, env: { controller: clock.env } });
    api = house.api;
    await house.addStore('depot');
    pool = await house.addPool('fast');
    disk = await makeDisk(join(house.files, 'disk.raw'), 8 * MiB, 'scrub');
    await done(house.importFile('disk.raw', { name: 'base', format: 'raw' }));
  });
  after(async () => {
    await house?.[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true });
  });

  /** The cached copies of the two hosts, in their order. */
  async function copies(): Promise<[CacheEntry, CacheEntry]> {
    const { items } = await api.listCache();
    const found = await Promise.all(
      ['host-1', 'host-2'].map(async ref => {
        const { id } = await api.getHost({ params: { ref } });
        return items.find(entry => entry.hostId === id);
      }),
    );
    return found as [CacheEntry, CacheEntry];
  }
  const dayOf = (time: string | null): string => new Date(time ?? 0).toDateString();
  const host2Is = (status: string) =>
    until(`host-2 is ${status}`, async () => (await api.getHost({ params: { ref: 'host-2' } })).status === status);

  /** Some seconds before the job is due, on the Sunday so many weeks after the next one. Returns that day. */
  function sunday(weeks: number): string {
    const at = new Date();
    at.setDate(at.getDate() + 7 - at.getDay());
    at.setHours(2, 22, 57, 0);
    const due = at.getTime() + weeks * WEEK;
    clock.shift(due - Date.now());
    return new Date(due).toDateString();
  }

  it('reads each of them, on each host, and notes when', async () => {
    for (const host of ['host-1', 'host-2'])
      await done(api.createVolumes({ body: { name: `on-${host}`, image: 'base', primaryStorage: 'fast', host } }, WAIT));
    const day = sunday(0);
    await until('both were read', async () => (await copies()).every(copy => dayOf(copy.verifiedAt) === day));
    assert.deepEqual(
      (await copies()).map(copy => [copy.status, copy.reason]),
      [
        ['ready', null],
        ['ready', null],
      ],
    );
  }).timeout(60_000);

  it('finds a bit that changed, though another host is away, and says which volumes stand on it', async () => {
    const { id } = await api.getImage({ params: { ref: 'base' } });
    const path = join(pool(1), 'cache', id, 'image.raw');
    chmodSync(path, 0o644);
    writeFileSync(path, flipBit(readFileSync(path), 4 * MiB + 4096, 3), { flag: 'r+' });
    const read = (await copies())[1].verifiedAt;
    await house.cistern.agents[1]!.stop();
    await host2Is('disconnected');

    sunday(1);
    const [damaged] = await until('the damage is found', async () => {
      const found = await copies();
      return found[0].status === 'damaged' && found;
    });
    assert.match(damaged.reason!, /CACHE_DAMAGED|part \d/);
    const { items } = await api.listOperations();
    const verified = items.find(operation => operation.kind === 'cache.verify' && operation.error?.code === 'CACHE_DAMAGED');
    assert.match(verified!.error!.detail, /volumes stand on it: on-host-1/);
    const events = (await api.listEvents({ query: { limit: 1000 } })).items;
    assert.equal(events.filter(event => event.type === 'cache.damaged').length, 1);
    const [, away] = await copies();
    assert.deepEqual([away.status, away.verifiedAt], ['ready', read], 'nothing is known of the one that is away');
  }).timeout(60_000);

  it('takes up both again once the one is fetched anew and the other is back', async () => {
    await done(api.addToCache({ body: { image: 'base', primaryStorage: 'fast', host: 'host-1' } }, WAIT));
    await sameContent(house.volumeFile(pool(1), await api.getVolume({ params: { ref: 'on-host-1' } })), {
      path: disk,
      format: 'raw',
    });
    await house.cistern.agents[1]!.start();
    await host2Is('connected');
    const day = sunday(2);
    await until('both were read', async () => (await copies()).every(copy => dayOf(copy.verifiedAt) === day));
    assert.ok((await copies()).every(copy => copy.status === 'ready' && copy.reason === null));
  }).timeout(60_000);
});
