import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { info } from '../../agent/host/qemu-img.ts';
import { findPrimaryDriver } from '../../agent/primary/registry.ts';
import { newId } from '../../shared/id.ts';
import { exec } from './commands-host.ts';

const GiB = 2 ** 30;

/**
 * A host whose qemu-img says that it is 4.2, where sub-clusters were not known: the real one behind a program of that name. The
 * versions that were asked for are kept by the process, which is why this test has a file, and so a process, of its own.
 */
describe('volumes on a host with an old qemu', () => {
  let base: string;
  const path = process.env['PATH'];

  before(async () => {
    base = await mkdtemp(join(tmpdir(), 'cistern-old-qemu-'));
    const { stdout } = await exec('which', ['qemu-img']);
    await mkdir(join(base, 'bin'));
    const script = `#!/bin/sh\n[ "$1" = --version ] && { echo "qemu-img version 4.2.1"; exit; }\nexec ${stdout.trim()} "$@"\n`;
    await writeFile(join(base, 'bin', 'qemu-img'), script);
    await chmod(join(base, 'bin', 'qemu-img'), 0o755);
    process.env['PATH'] = `${join(base, 'bin')}:${path}`;
  });
  after(async () => {
    process.env['PATH'] = path;
    await rm(base, { recursive: true });
  });

  it('are made by qemu-img with plain options, and find their image where they are published', async () => {
    const root = join(base, 'pool');
    const signal = new AbortController().signal;
    const pool = await findPrimaryDriver('local').connect(
      { id: newId(), config: { path: root } },
      { initialize: true, signal, mountDir: base },
    );
    const image = newId();
    const digest = '0'.repeat(64);
    const sink = await pool.cacheSink({
      id: image,
      format: 'raw',
      size: GiB,
      virtualSize: GiB,
      digest,
      partSize: GiB,
      parts: ['zero'],
    });
    await sink.publish([]);
    const clone = { id: newId(), layerId: newId() };
    const empty = { id: newId(), layerId: newId() };
    await pool.createVolumes(newId(), [clone], GiB, { imageId: image, format: 'raw', digest }, signal, () => undefined);
    await pool.createVolumes(newId(), [empty], GiB, null, signal, () => undefined);
    await using a = await pool.volumeFile(clone.id, clone.layerId);
    await using b = await pool.volumeFile(empty.id, empty.layerId);
    assert.deepEqual((await info(a)).backing, { name: `../../cache/${image}/image.raw`, format: 'raw' });
    assert.deepEqual([(await info(a)).clusterSize, (await info(b)).clusterSize], [65536, 65536]);
    for (const disk of [a, b]) await exec('qemu-img', ['check', '-q', '-f', 'qcow2', disk.path]);
    await exec('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', a.path, pool.cacheName(image, 'raw')]);
    assert.deepEqual(await readdir(join(root, 'tmp')), []);
  });
});
