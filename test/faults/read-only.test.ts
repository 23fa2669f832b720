/** A disk that fails is made read-only by the kernel under what uses it: that is told, nothing half made is left, and it heals. */
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { failsWith, filesBelow, type House, makeDisk, MiB, NO_SCHEDULES, openHouse, sameContent, until } from '../e2e/house.ts';
import { done, WAIT } from '../servers/cistern.ts';
import { type Disk, type DiskKind, openDisk } from '../servers/disk.ts';

describe('a file system that turns read-only', () => {
  for (const kind of ['ext4', 'xfs'] as const) describe(`with ${kind}`, () => turnsReadOnly(kind));
});

function turnsReadOnly(kind: DiskKind): void {
  let house: House;
  let api: House['api'];
  let disk: Disk;
  let pool: string;

  before(async function () {
    this.timeout(60_000);
    house = await openHouse({ hosts: ['host-1'], controller: { schedules: NO_SCHEDULES, taskRetrySeconds: 3 } });
    api = house.api;
    disk = await openDisk(kind, { size: 96, path: house.cistern.dir('disk') });
    for (const name of ['pool', 'store']) mkdirSync(join(disk.path, name));
    pool = join(disk.path, 'pool');
    await done(api.addPrimaryStorage({ body: { name: 'fast', type: 'local', config: { path: pool } } }, WAIT));
    const config = { path: join(disk.path, 'store') };
    await done(api.addBackupStorage({ body: { name: 'shelf', type: 'dir', config } }, WAIT));
    await house.addStore('depot');
    await makeDisk(join(house.files, 'disk.raw'), 8 * MiB, 'read-only');
    await done(house.importFile('disk.raw', { name: 'base', backupStorages: ['shelf', 'depot'] }));
    await done(api.createVolumes({ body: { name: 'vm', image: 'base' } }, WAIT));
  });
  after(async () => {
    await house?.cistern.agents[0]!.stop();
    await disk?.[Symbol.asyncDispose]();
    await house?.[Symbol.asyncDispose]();
  });

  it('fails what would write there, says why, and changes nothing', async () => {
    const before = filesBelow(disk.path);
    await disk.remount('ro');
    const clone = await api.createVolumes({ body: { name: 'late', image: 'base' } }, WAIT);
    assert.deepEqual([clone.state, clone.error?.code], ['failed', 'POOL_UNAVAILABLE'], clone.error?.detail);
    assert.match(clone.error!.detail, /read-only/i);
    const volume = await api.getVolume({ params: { ref: 'vm' } });
    const gone = await api.deleteVolume({ params: { ref: volume.id } }, WAIT);
    assert.equal(gone.state, 'failed');
    const upload = await house.importFile('disk.raw', { name: 'other', backupStorages: ['shelf'] });
    assert.equal(upload.state, 'failed');
    assert.match(upload.error!.detail, /read-only/i);
    assert.deepEqual(filesBelow(disk.path), before);
    assert.equal((await api.getVolume({ params: { ref: 'vm' } })).status, 'ready');
  });

  it('lets what is there be read: the volume can be uploaded to another storage', async () => {
    await done(api.uploadVolume({ params: { ref: 'vm' }, body: { name: 'saved', backupStorages: ['depot'] } }, WAIT));
    const volume = await api.getVolume({ params: { ref: 'vm' } });
    const { id } = await api.getImage({ params: { ref: 'saved' } });
    const saved = join(house.cistern.folder, 'store-depot/images', id, 'image.qcow2');
    await sameContent(house.volumeFile(pool, volume), { path: saved, format: 'qcow2' });
  });

  it('disconnects the pool with the reason once it is looked at, and gets it back without a restart', async () => {
    await api.refreshPrimaryStorage({ params: { ref: 'fast' } }, WAIT);
    const { hosts, status } = await api.getPrimaryStorage({ params: { ref: 'fast' } });
    assert.equal(status, 'disconnected');
    assert.match(hosts[0]!.reason!, /read-only/i);
    await assert.rejects(api.createVolumes({ body: { name: 'none', image: 'base' } }, WAIT), failsWith('NO_STORAGE'));
    await disk.remount('rw');
    await until('the pool is back', async () => {
      await api.refreshPrimaryStorage({ params: { ref: 'fast' } }, WAIT);
      return (await api.getPrimaryStorage({ params: { ref: 'fast' } })).status === 'connected';
    });
    await done(api.createVolumes({ body: { name: 'again', image: 'base' } }, WAIT));
    await done(house.importFile('disk.raw', { name: 'third', backupStorages: ['shelf'] }));
    await done(api.deleteVolumes({ body: { volumes: ['vm', 'again'] } }, WAIT));
  });
}
