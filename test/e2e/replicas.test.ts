import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { TransferSummary } from '../../shared/commands/refs.ts';
import type { Image } from '../../shared/model.ts';
import { done, WAIT } from '../servers/cistern.ts';
import { flipBit } from '../unit/damage.ts';
import { failsWith, filesBelow, type House, makeDisk, MiB, NO_SCHEDULES, openHouse, until } from './house.ts';

describe('the replicas of an image', () => {
  let house: House;
  let api: House['api'];
  let image: Image;
  const store = (name: string): string => join(house.cistern.folder, `store-${name}`);
  const object = (name: string): string => join(store(name), 'images', image.id, 'image.raw');
  const manifest = (name: string): Record<string, unknown> =>
    JSON.parse(readFileSync(join(store(name), 'images', image.id, 'manifest.json'), 'utf8')) as Record<string, unknown>;
  const damage = (name: string, at: number): void =>
    writeFileSync(object(name), flipBit(readFileSync(object(name)), at, 3), { flag: 'r+' });
  const replicate = (...backupStorages: string[]) =>
    api.replicateImage({ params: { ref: 'base' }, body: { backupStorages } }, WAIT);
  const verify = () => api.verifyImage({ params: { ref: 'base' } }, WAIT);
  const states = async (): Promise<Record<string, string>> => {
    const { items } = await api.listBackupStorages();
    const { replicas } = await api.getImage({ params: { ref: 'base' } });
    const nameOf = (id: string): string => items.find(item => item.id === id)!.name;
    return Object.fromEntries(replicas.map(replica => [nameOf(replica.backupStorageId), replica.status]).toSorted());
  };

  before(async function () {
    this.timeout(60_000);
    house = await openHouse({ hosts: ['host-1'], sshd: true, controller: { schedules: NO_SCHEDULES } });
    api = house.api;
    for (const name of ['depot', 'shelf', 'attic']) await house.addStore(name);
    await house.addSftp('vault');
    const disk = await makeDisk(join(house.files, 'disk.raw'), 40 * MiB, 'replicas');
    await truncate(disk, 96 * MiB);
    await done(house.importFile('disk.raw', { name: 'base', format: 'raw', backupStorages: ['depot'] }));
    image = await api.getImage({ params: { ref: 'base' } });
  });
  after(() => house?.[Symbol.asyncDispose]());

  it('go to other storages, zeros left out, and are the image bit for bit', async () => {
    const operation = await done(replicate('shelf', 'vault'));
    assert.deepEqual(await states(), { depot: 'ready', shelf: 'ready', vault: 'ready' });
    const { transfers } = operation.output as { transfers: { summary: unknown }[] };
    for (const { summary } of transfers) {
      const { parts, zeroParts, moved } = TransferSummary.parse(summary);
      assert.deepEqual([parts, zeroParts, moved], [6, 3, 48 * MiB]);
    }
    assert.ok(readFileSync(object('shelf')).equals(readFileSync(object('depot'))));
    const { createdAt: _, ...mine } = manifest('shelf');
    const { createdAt: __, ...first } = manifest('depot');
    assert.deepEqual(mine, first);
    assert.deepEqual([mine.name, mine.media, mine.digest], ['base', 'root', image.digest]);
    await done(verify());
  }).timeout(60_000);

  it('are not copied over one that is there', async () => {
    await assert.rejects(replicate('shelf'), failsWith('WRONG_STATE', /base has a replica on shelf already/));
    await assert.rejects(replicate('attic', 'nowhere'), failsWith('NOT_FOUND', /nowhere/));
    assert.deepEqual(Object.keys(await states()), ['depot', 'shelf', 'vault']);
  });

  it('are never one and the same: a place is known once, by whatever way', async () => {
    symlinkSync(store('depot'), store('link'));
    const add = (name: string, path: string) => api.addBackupStorage({ body: { name, type: 'dir', config: { path } } }, WAIT);
    for (const path of [store('depot'), store('link')])
      await assert.rejects(
        done(add('again', path)),
        /STORE_CONFIG backup storage again is the same place as backup storage depot/,
      );
    await assert.rejects(house.addSftp('again', store('depot')), /STORE_CONFIG backup storage again is the same place/);
    const own = await house.addStore('own');
    rmSync(own, { recursive: true });
    symlinkSync(store('depot'), own); // it became so later
    const { error } = await replicate('own');
    assert.deepEqual(
      [error?.code, error?.detail],
      ['STORE_CONFIG', 'backup storage own is the same place as backup storage depot'],
    );
    assert.deepEqual(await states(), { depot: 'ready', shelf: 'ready', vault: 'ready' });
    await done(verify());
    assert.deepEqual(readdirSync(store('depot')), ['images']);
    await done(api.deleteBackupStorage({ params: { ref: 'own' } }, WAIT));
  }).timeout(60_000);

  it('do not come where an earlier one is still to be removed, which would take them with it', async () => {
    renameSync(store('shelf'), store('away'));
    await done(api.deleteReplica({ params: { ref: 'base', store: 'shelf' } }, WAIT));
    renameSync(store('away'), store('shelf'));
    assert.deepEqual(await states(), { depot: 'ready', vault: 'ready' });
    await assert.rejects(replicate('shelf'), failsWith('WRONG_STATE', /what an earlier operation left of image base on shelf/));
    const host = house.cistern.agents[0]!;
    await host.kill();
    await host.start();
    await until('the replica can come', async () => {
      const copied = await replicate('shelf').catch(failsWith('WRONG_STATE'));
      return typeof copied === 'object' && (await done(Promise.resolve(copied)));
    });
    assert.deepEqual(await states(), { depot: 'ready', shelf: 'ready', vault: 'ready' });
    assert.ok(readFileSync(object('shelf')).equals(readFileSync(object('depot'))));
  }).timeout(60_000);

  it('are told by the first bad part and the storage where it lies, and mended from a good one', async () => {
    for (const at of [20 * MiB, 40 * MiB]) damage('shelf', at);
    const found = await verify();
    assert.equal(found.error?.code, 'DIGEST_MISMATCH');
    assert.match(found.error.detail, /^shelf: .*part 1 of .*16777216 bytes at 16777216/);
    assert.deepEqual(await states(), { depot: 'ready', shelf: 'damaged', vault: 'ready' });
    await done(replicate('shelf'));
    assert.deepEqual(await states(), { depot: 'ready', shelf: 'ready', vault: 'ready' });
    await done(verify());
    const events = (await api.listEvents({ query: { limit: 1000 } })).items.map(event => event.type);
    assert.deepEqual([events.includes('replica.damaged'), events.includes('replica.repaired')], [true, true]);
  }).timeout(60_000);

  it('go one by one, but not the last good one', async () => {
    const remove = (name: string) => api.deleteReplica({ params: { ref: 'base', store: name } }, WAIT);
    await done(remove('vault'));
    await done(remove('shelf'));
    assert.deepEqual(await states(), { depot: 'ready' });
    assert.ok(!existsSync(join(store('shelf'), 'images', image.id)) && existsSync(object('depot')));
    assert.deepEqual(readdirSync(join(house.sshd.path, 'images')), []);
    await assert.rejects(remove('depot'), failsWith('IN_USE', /no other good replica/));
    await assert.rejects(remove('shelf'), failsWith('NOT_FOUND', /no replica on backup storage shelf/));
  }).timeout(60_000);

  it('are not made of a damaged one: nothing of them is left, and the damage is known', async () => {
    damage('depot', 4 * MiB);
    const failed = await replicate('shelf', 'attic');
    assert.equal(failed.error?.code, 'DIGEST_MISMATCH');
    assert.match(failed.error.detail, /part 0 of/);
    assert.deepEqual(await states(), { depot: 'damaged' });
    assert.deepEqual([filesBelow(store('shelf')), filesBelow(store('attic'))], [[], []]);
    damage('depot', 4 * MiB);
    await done(verify());
    assert.deepEqual(await states(), { depot: 'ready' });
  }).timeout(60_000);
});
