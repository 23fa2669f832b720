/** Room ends on the disk of an SFTP server, at whichever step of an import; SFTP has no word for that. */
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { filesBelow, type House, makeDisk, MiB, openHouse, sameContent } from '../e2e/house.ts';
import { done, WAIT } from '../servers/cistern.ts';
import { type Disk, openDisk } from '../servers/disk.ts';
import { eachRoom } from './room.ts';

describe('a full disk under an SFTP server', () => {
  let house: House;
  let api: House['api'];
  let disk: Disk;
  let store: string;
  let source: string;
  const inStore = () => filesBelow(store);

  before(async function () {
    this.timeout(60_000);
    house = await openHouse({ sshd: true });
    api = house.api;
    disk = await openDisk('ext4', { size: 96, path: house.cistern.dir('server') });
    store = join(disk.path, 'store');
    mkdirSync(store);
    await house.addSftp('vault', store);
    await house.addPool('fast');
    source = await makeDisk(join(house.files, 'disk.raw'), 16 * MiB, 'full-sftp');
    await done(house.importFile('disk.raw', { name: 'first' }));
  });
  after(async () => {
    await house?.cistern.agents[0]!.stop();
    await house?.sshd.stop();
    await disk?.[Symbol.asyncDispose]();
    await house?.[Symbol.asyncDispose]();
  });

  it('takes an image whole or not at all, says that the store is full and how full, and takes it when there is room', async function () {
    this.timeout(120_000);
    const before = inStore();
    let n = 0;
    const told: string[] = [];
    const codes = await eachRoom(
      disk,
      async () => {
        const operation = await house.importFile('disk.raw', { name: `image-${++n}` });
        if (operation.error) told.push(operation.error.detail);
        return operation;
      },
      async state => {
        const made = (await api.listImages()).items.filter(one => one.name !== 'first');
        assert.equal(made.length, state === 'succeeded' ? 1 : 0);
        const whole = made.flatMap(({ id }) => [`images/${id}/image.qcow2`, `images/${id}/manifest.json`]);
        assert.deepEqual(inStore(), [...before, ...whole].sort()); // prettier-ignore
        for (const { id } of made) {
          const path = join(store, 'images', id, 'image.qcow2');
          await sameContent({ path, format: 'qcow2' }, { path: source, format: 'raw' });
          await done(api.deleteImage({ params: { ref: id } }, WAIT));
        }
        assert.deepEqual(inStore(), before);
      },
    );
    assert.deepEqual(codes, ['STORE_FULL'], told.join('\n'));
    for (const detail of told) assert.match(detail, /\d+ of \d+ bytes free, \d+ bytes were to be written/);
  });

  it('lets images be read and deleted while it is full', async () => {
    using _full = await disk.fill();
    await done(api.createVolumes({ body: { name: 'vm', image: 'first' } }, WAIT));
    await done(api.verifyImage({ params: { ref: 'first' } }, WAIT));
    await done(api.deleteVolumes({ body: { volumes: ['vm'] } }, WAIT));
    await done(api.deleteImage({ params: { ref: 'first' } }, WAIT));
    assert.deepEqual(inStore(), []);
  });
});
