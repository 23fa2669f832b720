import assert from 'node:assert/strict';
import { copyFile, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { newId } from '../../shared/id.ts';
import { code, exec, type Host, makeDisk, MiB, ref, sha256, startHost } from './commands-host.ts';

/**
 * A guest may write what it likes into its disk: here, the header of a qcow2 that stands on a file of the host. That file is a pipe
 * which nobody feeds, so that a command which opened it would not end.
 */
describe('raw stays raw: a guest wrote a qcow2 header into its disk', function () {
  this.timeout(60_000);
  let host: Host;
  let store: Awaited<ReturnType<Host['store']>>;
  let pool: Awaited<ReturnType<Host['pool']>>;
  /** What the guest's disk holds, byte for byte: a whole qcow2, then zeros. */
  let trap: string;
  const volume = { id: newId(), layerId: newId() };
  const raw = { id: newId(), format: 'raw' as const };
  let digest: string;
  const size = 8 * MiB;

  before(async () => {
    host = await startHost();
    [store, pool] = [await host.store(), await host.pool()];
    const canary = join(host.base, 'canary');
    await exec('mkfifo', ['--', canary]);
    trap = await makeDisk(join(host.base, 'trap.raw'));
    const header = join(host.base, 'header.qcow2');
    await exec('qemu-img', ['create', '-q', '-u', '-f', 'qcow2', '-F', 'raw', '-b', canary, header, '64M']);
    const bytes = await readFile(header);
    await rm(header);
    const whole = await readFile(trap);
    bytes.copy(whole);
    await writeFile(trap, whole);
    // the guest's own work, on a volume that is up to it
    await host.run('volume.create', { pool: ref(pool), volumes: [volume], size, backing: null });
    await exec('qemu-io', ['-f', 'qcow2', '-c', `write -q -s ${trap} 0 ${size}`, layer(volume)]);
  });
  after(() => host[Symbol.asyncDispose]());

  const layer = ({ id, layerId }: typeof volume) => join(pool.path, 'volumes', id, `${layerId}.qcow2`);
  const bounded = { signal: AbortSignal.timeout(50_000) };
  const object = (image: { id: string; format: string }) => join(store.path, 'images', image.id, `image.${image.format}`);
  const holdsTheTrap = (path: string, format: string) => exec('qemu-img', ['compare', '-f', format, '-F', 'raw', path, trap]);
  const upload = (of: typeof volume, image: { id: string; format: 'qcow2' | 'raw' }) =>
    host.run(
      'volume.upload',
      { pool: ref(pool), volumeId: of.id, layerId: of.layerId, image, compress: true, stores: [ref(store)] },
      bounded,
    );
  const clone = { id: newId(), layerId: newId() };

  it('the volume is uploaded as a raw template, byte for byte', async () => {
    ({ digest } = await upload(volume, raw));
    assert.equal(await sha256(object(raw)), await sha256(trap));
  });

  it('the template is cached as it is, and told with the size of the file, not of the header', async () => {
    const filled = await host.run('cache.fill', { pool: ref(pool), image: { ...raw, digest }, stores: [ref(store)] }, bounded);
    assert.equal(filled.virtualSize, size);
    assert.equal(await sha256(join(pool.path, 'cache', raw.id, 'image.raw')), await sha256(trap));
  });

  it('a clone of it shows a guest the header as data', async () => {
    const backing = { imageId: raw.id, format: raw.format, virtualSize: size, digest };
    const made = await host.run('volume.create', { pool: ref(pool), volumes: [clone], size: null, backing }, bounded);
    assert.equal(made.size, size);
    await holdsTheTrap(layer(clone), 'qcow2');
  });

  it('the clone is inspected, grown, counted, thrown away and brought back', async () => {
    const names = { pool: ref(pool), volumeId: clone.id, layerId: clone.layerId };
    assert.equal((await host.run('volume.inspect', names, bounded)).size, size);
    assert.equal((await host.run('volume.resize', { ...names, size: 2 * size }, bounded)).size, 2 * size);
    assert.equal((await host.run('volume.inspect', names, bounded)).size, 2 * size);
    assert.equal((await host.run('pool.usage', { pool: ref(pool) }, bounded)).volumes.length, 2);
    const which = { pool: ref(pool), volumeIds: [clone.id] };
    assert.deepEqual((await host.run('volume.delete', which, bounded)).trashed, [clone.id]);
    assert.deepEqual((await host.run('volume.restore', which, bounded)).restored, [clone.id]);
    await holdsTheTrap(layer(clone), 'qcow2');
  });

  it('the clone is uploaded as qcow2 and as raw, and both show a guest the same', async () => {
    for (const format of ['qcow2', 'raw'] as const) {
      const image = { id: newId(), format };
      assert.equal((await upload(clone, image)).virtualSize, 2 * size);
      await holdsTheTrap(object(image), format);
    }
  });

  it('such a disk is not imported again, whatever it is declared: its bytes say qcow2', async () => {
    for (const sourceFormat of ['raw', 'qcow2', null] as const) {
      const path = join(host.base, 'spool', newId());
      await copyFile(trap, path);
      const input = {
        image: { id: newId(), format: 'raw' as const },
        source: { type: 'upload' as const, size: null },
        sourceFormat,
        expectedSha256: null,
        stores: [ref(store)],
      };
      const imported = host.run('image.import', input, { ...bounded, upload: { path, size, sha256: await sha256(trap) } });
      await assert.rejects(imported, code(sourceFormat === 'raw' ? 'IMAGE_FORMAT_MISMATCH' : 'IMAGE_BACKING_FILE'));
    }
  });

  it('the raw template is evicted once its clone is gone, and nothing is left', async () => {
    await host.run('volume.delete', { pool: ref(pool), volumeIds: [clone.id, volume.id], forGood: true }, bounded);
    await host.run('cache.evict', { pool: ref(pool), imageId: raw.id }, bounded);
    const { cache, volumes, trash } = await host.run('pool.usage', { pool: ref(pool) }, bounded);
    assert.deepEqual([cache, volumes, trash], [[], [], []]);
  });
});
