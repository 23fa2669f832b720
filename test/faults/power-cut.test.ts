import assert from 'node:assert/strict';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { execa } from 'execa';
import { FINAL_STATES } from '../../shared/model.ts';
import { differences } from '../e2e/ledger.ts';
import { type House, NO_SCHEDULES, openHouse, until } from '../e2e/house.ts';
import { done, WAIT } from '../servers/cistern.ts';
import { type Disk, type DiskKind, makeImage, mountDisk, openDisk } from '../servers/disk.ts';
import { allReady, furnish, randomFrom, type Setup, work } from './power-cut/work.ts';

/** On each of two file systems. */
const CUTS = Number(process.env.CISTERN_CUTS ?? 10);

/**
 * The whole installation lies on one disk. While work runs, what the device holds is copied at random moments: in one moment each,
 * since the device is a file on an XFS that can clone it. A power cut leaves just that: pages that were not written yet lie above.
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
  const image = join(shelf.path, 'image');
  await makeImage(kind, image, 600);
  const mnt = join(shelf.path, 'mnt');
  const held: { disk: Disk } = { disk: await mountDisk(kind, image, mnt) };
  await using _disk = { [Symbol.asyncDispose]: () => held.disk[Symbol.asyncDispose]() };
  await using house = await houseOn(mnt);
  const setup = await furnish(house, shelf.path);
  const cuts: string[] = [];
  const working = work(setup, random, () => cuts.length === CUTS);
  while (cuts.length < CUTS) {
    await delay(200 + random(1500));
    const cut = join(shelf.path, `cut-${cuts.length}`);
    await execa('cp', ['--reflink=always', '--', image, cut]);
    cuts.push(cut);
  }
  const ended = await working;
  await stop(house);
  let ready = 0;
  for (const cut of cuts) {
    await held.disk[Symbol.asyncDispose]();
    held.disk = await mountDisk(kind, cut, mnt);
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
