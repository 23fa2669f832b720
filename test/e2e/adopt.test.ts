import assert from 'node:assert/strict';
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import { publishImage } from '../../agent/backup/layout.ts';
import { openBackupStore } from '../../agent/backup/registry.ts';
import { fileSource } from '../../agent/transfer/file-end.ts';
import { newId } from '../../shared/id.ts';
import { done, WAIT } from '../servers/cistern.ts';
import { failsWith, type House, makeDisk, MiB, NO_SCHEDULES, openHouse, sameContent } from './house.ts';

const NEVER = new AbortController().signal;

describe('images that lie on a backup storage and that nobody knows', () => {
  let lost: House;
  let house: House;
  let api: House['api'];
  let pool: string;
  let disk: string;
  /** The backup storage whose controller was lost. */
  let depot: string;
  const ids: Record<string, string> = {};

  before(async function () {
    this.timeout(60_000);
    const options = { hosts: ['host-1'], controller: { schedules: NO_SCHEDULES } };
    [lost, house] = await Promise.all([openHouse(options), openHouse(options)]);
    api = house.api;
    depot = await lost.addStore('depot');
    disk = await makeDisk(join(lost.files, 'disk.raw'), 20 * MiB, 'adopt');
    await makeDisk(join(lost.files, 'tools.raw'), 8 * MiB, 'tools');
    for (const name of ['base', 'tools', 'torn'])
      await done(
        lost.importFile(name === 'tools' ? 'tools.raw' : 'disk.raw', { name, media: name === 'tools' ? 'data' : 'root' }),
      );
    for (const { name, id } of (await lost.api.listImages()).items) ids[name] = id;
    await done(api.addBackupStorage({ body: { name: 'depot', type: 'dir', config: { path: depot } } }, WAIT));
    pool = (await house.addPool('fast'))(1);
  });
  after(async () => {
    await lost?.[Symbol.asyncDispose]();
    await house?.[Symbol.asyncDispose]();
  });

  const scan = async (store: string, adopt = false): Promise<string[]> => {
    const { output } = await done(api.scanBackupStorage({ params: { ref: store }, body: { adopt } }, WAIT));
    const found = output!.differences as { what: string; id: string; name?: string; note?: string }[];
    const known = Object.fromEntries(Object.entries(ids).map(([name, id]) => [id, name]));
    return found.map(({ what, id, name, note }) => `${what} ${name ?? `(${known[id]})`}${note ? `: ${note}` : ''}`).sort();
  };
  const images = async () => (await api.listImages()).items.map(image => image.name).sort();

  it('are only told of by a scan, with the names that their manifests have', async () => {
    writeFileSync(join(depot, 'images', ids.torn!, 'manifest.json'), '{"version":1');
    const found = await scan('depot');
    assert.deepEqual(found.slice(1), ['orphan base', 'orphan tools']);
    assert.match(found[0]!, /^orphan \(torn\): reading images\/.*manifest\.json: it is not JSON/);
    assert.deepEqual(await images(), []);
  });

  it('are adopted where they have a sound manifest, and their clones show a guest what they always did', async () => {
    await done(house.api.importImage({ body: { name: 'base', source: { type: 'url', url: `${lost.web.url}/disk.raw` } } }, WAIT));
    const found = await scan('depot', true);
    const another = `adopted-${ids.base!.slice(0, 8)}`; // its name is another one's by now
    assert.deepEqual(found.slice(0, 2), [`adopted ${another}`, 'adopted tools']);
    assert.match(found[2]!, /^orphan \(torn\)/);
    assert.deepEqual(await images(), [another, 'base', 'tools']);
    const tools = await api.getImage({ params: { ref: 'tools' } });
    const { createdAt: _, replicas, ...told } = tools;
    const { createdAt: __, replicas: ___, ...was } = await lost.api.getImage({ params: { ref: 'tools' } });
    assert.deepEqual([told, replicas.length, replicas[0]!.status], [was, 1, 'ready']);
    await done(api.createVolumes({ body: { name: 'clone', image: another } }, WAIT));
    const volume = await api.getVolume({ params: { ref: 'clone' } });
    await sameContent(house.volumeFile(pool, volume), { path: disk, format: 'raw' });
    await done(api.verifyImage({ params: { ref: 'tools' } }, WAIT));
    assert.deepEqual((await scan('depot', true)).length, 1, 'the second time there is nothing to adopt');
    rmSync(join(depot, 'images', ids.torn!), { recursive: true });
  }).timeout(60_000);

  it('become replicas of images that are known, unless they are not the same', async () => {
    const shelf = await house.addStore('shelf');
    mkdirSync(join(shelf, 'images'));
    cpSync(join(depot, 'images', ids.tools!), join(shelf, 'images', ids.tools!), { recursive: true });
    assert.deepEqual(await scan('shelf'), ['orphan tools']);
    assert.deepEqual(await scan('shelf', true), ['adopted tools: as a replica']);
    assert.equal((await api.getImage({ params: { ref: 'tools' } })).replicas.length, 2);

    const attic = await house.addStore('attic');
    const wrong = join(attic, 'images', ids.tools!);
    cpSync(join(depot, 'images', ids.base!), wrong, { recursive: true });
    const manifest = join(wrong, 'manifest.json');
    writeFileSync(manifest, readFileSync(manifest, 'utf8').replaceAll(ids.base!, ids.tools!));
    assert.match((await scan('attic', true))[0]!, /^different tools: its manifest describes another image/);
    assert.equal((await api.getImage({ params: { ref: 'tools' } })).replicas.length, 2);
  }).timeout(60_000);

  it('are judged before anything stands on them: one that names a file of the host is never cloned', async () => {
    const shelf = join(house.cistern.folder, 'store-shelf');
    const hostile = join(house.files, 'hostile.qcow2');
    await execa('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', disk, '--', hostile]);
    const store = await openBackupStore({ id: newId(), type: 'dir', config: { path: shelf } }, NEVER);
    const image = { id: newId(), name: 'hostile', format: 'qcow2' as const, virtualSize: 20 * MiB };
    await publishImage(store, image, await fileSource(hostile, { name: 'hostile' }), {
      streams: 1,
      stallSeconds: 10,
      signal: NEVER,
    });
    await store.close();
    assert.deepEqual(await scan('shelf', true), ['adopted hostile']);
    const before = readdirSync(join(pool, 'cache'));
    const refused = await api.createVolumes({ body: { name: 'stolen', image: 'hostile' } }, WAIT);
    assert.equal(refused.error?.code, 'IMAGE_BACKING_FILE');
    assert.deepEqual([readdirSync(join(pool, 'cache')), readdirSync(join(pool, 'tmp'))], [before, []]);
    await assert.rejects(api.getVolume({ params: { ref: 'stolen' } }), failsWith('NOT_FOUND'));
  }).timeout(60_000);
});
