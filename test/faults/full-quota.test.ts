/** A quota, not the disk, is used up under a pool, a backup storage and a spool: btrfs says EDQUOT where others say ENOSPC. */
import assert from 'node:assert/strict';
import { closeSync, mkdirSync, openSync, readdirSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import type { ErrorCode } from '../../shared/errors.ts';
import type { Operation } from '../../shared/model.ts';
import { filesBelow, type House, makeDisk, MiB, openHouse, sameContent, until } from '../e2e/house.ts';
import { done, WAIT } from '../servers/cistern.ts';

const NEVER = '0 0 1 1 *';
const QUOTA = 64 * MiB;

describe('a quota that is used up', () => {
  let house: House;
  let api: House['api'];
  let folder: string;
  let source: string;
  let mounted = false;

  before(async function () {
    this.timeout(60_000);
    const schedules = { capacity: NEVER, reconnect: NEVER, trash: NEVER, cache: NEVER, prune: NEVER };
    house = await openHouse({ hosts: ['host-1'], controller: { schedules } });
    api = house.api;
    folder = house.cistern.dir('quotas');
    const image = join(house.cistern.folder, 'quotas.img');
    await execa('truncate', ['-s', '600M', '--', image]);
    // it looks at every mount of the machine, and gives up where the disk of another test is just being taken away
    await until('mkfs.btrfs', async () => (await execa('mkfs.btrfs', ['-q', '-f', image], { reject: false })).exitCode === 0);
    await execa('mount', ['-t', 'btrfs', '-o', 'loop', '--', image, folder]);
    mounted = true;
    await execa('btrfs', ['quota', 'enable', folder]);
    for (const name of ['pool', 'store', 'spool']) {
      await execa('btrfs', ['subvolume', 'create', join(folder, name)]);
      await execa('btrfs', ['qgroup', 'limit', String(QUOTA), join(folder, name)]);
    }
    for (const name of ['pool', 'store']) mkdirSync(join(folder, name, 'own'));
    await house.addStore('depot');
    await done(api.addBackupStorage({ body: { name: 'shelf', type: 'dir', config: { path: join(folder, 'store/own') } } }, WAIT));
    const config = { path: join(folder, 'pool/own') };
    await done(api.addPrimaryStorage({ body: { name: 'fast', type: 'local', config } }, WAIT));
    source = await makeDisk(join(house.files, 'disk.raw'), 16 * MiB, 'quota');
    await done(house.importFile('disk.raw', { name: 'base', backupStorages: ['depot'] }));
  });
  after(async () => {
    await house?.cistern.agents[0]!.stop();
    if (mounted) await execa('umount', ['-l', '--', folder]);
    await house?.[Symbol.asyncDispose]();
  });

  /** Writes until the quota refuses more; there is room again once the result is disposed of. */
  async function useUp(name: string): Promise<Disposable> {
    const ballast = join(folder, name, 'ballast');
    const file = openSync(ballast, 'w');
    for (const piece of [MiB, 4096])
      try {
        for (;;) writeSync(file, Buffer.alloc(piece, 1));
      } catch (error) {
        assert.equal((error as NodeJS.ErrnoException).errno, -122, String(error)); // EDQUOT, which Node calls UNKNOWN
      }
    closeSync(file);
    await execa('sync', ['--file-system', '--', folder]);
    return { [Symbol.dispose]: () => rmSync(ballast) };
  }
  const failsAs = ({ state, error }: Operation, code: ErrorCode): void =>
    assert.deepEqual([state, error?.code], ['failed', code], error?.detail);
  const freed = () => execa('sync', ['--file-system', '--', folder]); // btrfs gives room back with its next commit

  it('under a pool is a full pool: nothing half made, deletes work, and all works with a larger one', async () => {
    const inPool = (area: string) => readdirSync(join(folder, 'pool/own', area));
    const clone = (name: string) => api.createVolumes({ body: { name, image: 'base', count: 3 } }, WAIT);
    {
      using _full = await useUp('pool');
      failsAs(await api.addToCache({ body: { image: 'base', primaryStorage: 'fast' } }, WAIT), 'POOL_FULL');
      assert.deepEqual([...inPool('tmp'), ...inPool('cache')], []);
    }
    await freed();
    await done(clone('vm'));
    {
      using _full = await useUp('pool');
      failsAs(await clone('more'), 'POOL_FULL');
      assert.deepEqual([inPool('tmp').length, inPool('volumes').length], [0, 3]);
      const { items } = await api.listVolumes();
      await sameContent(house.volumeFile(join(folder, 'pool/own'), items[0]!), { path: source, format: 'raw' });
      await done(api.deleteVolumes({ body: { volumes: items.map(one => one.id) } }, WAIT));
      await done(api.emptyTrash({ body: {} }, WAIT));
      assert.deepEqual([...inPool('tmp'), ...inPool('volumes'), ...inPool('trash')], []);
    }
    await freed();
    await done(clone('again'));
  });

  it('under a backup storage is a full storage, and images can be deleted there', async () => {
    const store = join(folder, 'store/own');
    const add = (name: string) => house.importFile('disk.raw', { name, backupStorages: ['shelf'] });
    await done(add('first'));
    const before = filesBelow(store);
    {
      using _full = await useUp('store');
      failsAs(await add('second'), 'STORE_FULL');
      assert.deepEqual(filesBelow(store), before);
      await done(api.deleteImage({ params: { ref: 'first' } }, WAIT));
      assert.deepEqual(filesBelow(store), []);
    }
    await freed();
    await done(add('third'));
  });

  it('under a spool fails imports cleanly', async () => {
    const [agent] = house.cistern.agents;
    await agent!.stop();
    await execa('mount', ['--bind', '--', join(folder, 'spool'), join(house.cistern.folder, 'host-1/state/spool')]);
    try {
      await agent!.start();
      await until('the host is back', async () => (await api.getHost({ params: { ref: 'host-1' } })).status === 'connected');
      const add = (name: string) => house.importFile('disk.raw', { name, backupStorages: ['depot'] });
      {
        using _full = await useUp('spool');
        failsAs(await add('lost'), 'NO_CAPACITY');
        assert.deepEqual(readdirSync(join(folder, 'spool')), ['ballast']);
      }
      await freed();
      await done(add('found'));
      await agent!.stop();
    } finally {
      await execa('umount', ['-l', '--', join(house.cistern.folder, 'host-1/state/spool')]);
    }
  });
});
