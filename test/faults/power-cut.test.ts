import assert from 'node:assert/strict';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { FINAL_STATES } from '../../shared/model.ts';
import { differences } from '../e2e/ledger.ts';
import { type House, NO_SCHEDULES, openHouse, until } from '../e2e/house.ts';
import { done, WAIT } from '../servers/cistern.ts';
import { type DiskKind, openDisk } from '../servers/disk.ts';
import { cutDisks } from './power-cut/disks.ts';
import { allReady, allTold, furnish, randomFrom, type Setup, type Told, work } from './power-cut/work.ts';

/** On each of two file systems. */
const CUTS = Number(process.env.CISTERN_CUTS ?? 6);

/**
 * The installation lies on three disks. While work runs, what the devices hold is copied at random moments: each a file on an XFS that can
 * clone it. A power cut leaves just that: pages that were not written yet lie above.
 */
describe('a power cut', () => {
  for (const kind of ['ext4', 'xfs'] as const)
    it(`on ${kind} loses nothing that was done; what was under way ends by itself, and nothing is left`, () =>
      cutOff(kind)).timeout(400_000);
});

async function cutOff(kind: DiskKind): Promise<void> {
  const seed = Number(process.env.CISTERN_SEED ?? Date.now() % 100_000);
  console.log(`      CISTERN_SEED=${seed} repeats its choices`);
  const random = randomFrom(seed);
  await using shelf = await openDisk('xfs', { size: 4000 });
  await using disks = cutDisks(kind, shelf.path);
  const main = join(shelf.path, 'main-mnt');
  await disks.add('main', main);
  await using house = await houseOn(main);
  // before the house removes its folder, in which two of them are mounted
  await using _unmount = {
    [Symbol.asyncDispose]: async () => {
      await stop(house);
      await disks[Symbol.asyncDispose]();
    },
  };
  await disks.add('store', house.cistern.dir('store-depot'));
  await disks.add('pool', house.cistern.dir('host-1/pool-fast'));
  const setup = await furnish(house, shelf.path);
  const cuts: Told[] = [];
  const told: Told = { succeeded: [], sizes: {} };
  const working = work(setup, random, told, () => cuts.length === CUTS);
  while (cuts.length < CUTS) {
    await delay(200 + random(1500));
    const before = structuredClone(told);
    await disks.cut(cuts.length, house.cistern);
    cuts.push(before);
  }
  const ended = await working;
  await stop(house);
  let ready = 0;
  for (const [n, before] of cuts.entries()) {
    await disks.mountCut(n);
    allTold(setup, before);
    ready += await allReady(setup);
    await recover(setup);
    await allReady(setup);
  }
  console.log(`      ${ended} operations, ${cuts.length} cuts, ${ready} images, cache entries and volumes found whole`);
}

/** Everything in the state that the cut left is taken up and ends, and the book-keeping agrees with what lies there. */
async function recover({ house, places }: Setup): Promise<void> {
  const { api, cistern } = house;
  await cistern.agents[0]!.start();
  await cistern.controller.start();
  await until('the host is connected', async () => (await api.getHost({ params: { ref: 'host-1' } })).status === 'connected');
  await until(
    'the pool is connected',
    async () => (await api.getPrimaryStorage({ params: { ref: 'fast' } })).status === 'connected',
  );
  await until('every operation has ended', async () =>
    (await api.listOperations({ query: { limit: 1000 } })).items.every(one => FINAL_STATES.includes(one.state)),
  );
  await done(api.refreshPrimaryStorage({ params: { ref: 'fast' } }, WAIT));
  await stop(house);
  assert.deepEqual(differences(places), []);
}

async function stop({ cistern }: House): Promise<void> {
  await cistern.controller.stop();
  await cistern.agents[0]!.stop();
}

/** Its folder, and with it everything but the processes, below `folder`. */
async function houseOn(folder: string): Promise<House> {
  const before = process.env.TMPDIR;
  process.env.TMPDIR = folder;
  try {
    return await openHouse({ hosts: ['host-1'], controller: { schedules: NO_SCHEDULES } });
  } finally {
    process.env.TMPDIR = before;
  }
}
