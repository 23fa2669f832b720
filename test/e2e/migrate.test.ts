/** Volumes that move from one primary storage to another, through controller and agent. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import type { Operation } from '../../shared/model.ts';
import { done, WAIT } from '../servers/cistern.ts';
import { failsWith, type House, makeDisk, MiB, openHouse, sameContent, sha256, until } from './house.ts';

describe('a volume that moves', function () {
  this.timeout(120_000);
  let house: House;
  let api: House['api'];
  let slow: (host: number) => string;
  let fast: (host: number) => string;

  before(async () => {
    house = await openHouse({ hosts: ['host-1', 'host-2'] });
    ({ api } = house);
    await house.addStore('depot');
    [slow, fast] = [await house.addPool('slow'), await house.addPool('fast')];
    await makeDisk(join(house.files, 'disk.raw'), 16 * MiB, 'migrate');
    await done(house.importFile('disk.raw', { name: 'base' }));
  });
  after(() => house?.[Symbol.asyncDispose]());

  /** A clone of 32 MiB on `slow` to which a guest has written; returns where its file is, and a copy of what it shows. */
  async function written(name: string) {
    await done(
      api.createVolumes({ body: { name, image: 'base', size: 32 * MiB, primaryStorage: 'slow', host: 'host-1' } }, WAIT),
    );
    const { path } = house.volumeFile(slow(1), await volume(name));
    await execa('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 0x77 5M 300k', '-c', 'write -q -P 1 30M 4k', '--', path]);
    const shows = join(house.cistern.dir('shown'), `${name}.raw`);
    await execa('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', '--', path, shows]);
    return { path, shows: { path: shows, format: 'raw' } };
  }
  const volume = (ref: string) => api.getVolume({ params: { ref } });
  const nameOf = async (id: string) => (await api.getPrimaryStorage({ params: { ref: id } })).name;
  const migrate = (ref: string, body: object = {}, ask: object = WAIT): Promise<Operation> =>
    api.migrateVolume({ params: { ref }, body: { primaryStorage: 'fast', ...body } }, ask);
  const names = (folder: string) => ['volumes', 'trash', 'tmp'].flatMap(area => readdirSync(join(folder, area)));
  const settled = async () => {
    for (const ref of ['slow', 'fast'])
      assert.deepEqual(
        (await done(api.scanPrimaryStorage({ params: { ref }, body: { check: true } }, WAIT))).output!.differences,
        [],
      );
  };

  it('goes on standing on its image, shows the same bytes, and leaves nothing behind', async () => {
    const { shows } = await written('linked');
    const { output } = await done(migrate('linked'));
    assert.equal(output!.linked, true);
    const moved = await volume('linked');
    assert.deepEqual([await nameOf(moved.primaryStorageId), moved.size, moved.status], ['fast', 32 * MiB, 'ready']);
    assert.ok(moved.imageId !== null && moved.allocated! < 4 * MiB);
    await sameContent(house.volumeFile(fast(1), moved), shows);
    assert.deepEqual([names(slow(1)), names(fast(1))], [[], [moved.id]]);
    await settled();
    await done(migrate('linked', { primaryStorage: 'slow' }));
    await sameContent(house.volumeFile(slow(1), await volume('linked')), shows);
    await done(api.deleteVolume({ params: { ref: 'linked' } }, WAIT));
    await done(api.emptyTrash({ body: {} }, WAIT));
    await settled();
  });

  it('stands alone where asked for, and its image can go', async () => {
    const { shows } = await written('flat');
    const { output } = await done(migrate('flat', { flatten: true }));
    assert.equal(output!.linked, false);
    const moved = await volume('flat');
    assert.equal(moved.imageId, null);
    await done(api.evictFromCache({ body: { image: 'base', primaryStorage: 'fast', host: 'host-1' } }, WAIT));
    await sameContent(house.volumeFile(fast(1), moved), shows);
    await settled();
  });

  it('is not one that a program has open, nor one that no host can move', async () => {
    const { path } = await written('busy');
    const before = sha256(path);
    const vm = execa('qemu-io', ['-f', 'qcow2', '--', path], { stdin: 'pipe' });
    await until('it is open', async () => (await execa('qemu-img', ['info', '-f', 'qcow2', '--', path], { reject: false })).exitCode !== 0); // prettier-ignore
    try {
      assert.equal((await migrate('busy')).error?.code, 'VOLUME_IN_USE');
      assert.deepEqual((await volume('busy')).status, 'ready');
    } finally {
      vm.stdin.end('quit\n');
      await vm;
    }
    await assert.rejects(migrate('busy', { host: 'host-2' }), failsWith('NO_HOST', /host host-2 is not one that sees both/));
    await assert.rejects(
      migrate('busy', { primaryStorage: 'slow' }),
      failsWith('BAD_REQUEST', /is on primary storage slow already/),
    );
    assert.equal(sha256(path), before);
    assert.deepEqual(names(fast(1)).filter(name => path.includes(name)), []); // prettier-ignore
    await settled();
  });

  it('stays where it was when the move is cancelled, and moves at the next try', async () => {
    const { path, shows } = await written('kept');
    const { pid } = house.cistern.agents[0]!;
    process.kill(pid, 'SIGSTOP');
    let id: string;
    try {
      ({ id } = await migrate('kept', {}, {}));
      await api.cancelOperation({ params: { ref: id } });
    } finally {
      process.kill(pid, 'SIGCONT');
    }
    assert.equal((await house.ended(id)).state, 'cancelled');
    assert.ok(existsSync(path));
    assert.equal(await nameOf((await volume('kept')).primaryStorageId), 'slow');
    await settled();
    await done(migrate('kept'));
    await sameContent(house.volumeFile(fast(1), await volume('kept')), shows);
    await settled();
  });

  it('survives the death of controller and agent in the middle', async () => {
    const { shows } = await written('hardy');
    const { controller, agents } = house.cistern;
    const { id } = await migrate('hardy', { flatten: true }, {});
    await Promise.all([controller.kill(), agents[0]!.kill()]);
    await Promise.all([controller.start(), agents[0]!.start()]);
    assert.equal((await house.ended(id)).state, 'succeeded');
    await sameContent(house.volumeFile(fast(1), await volume('hardy')), shows);
    await settled();
  });
});
