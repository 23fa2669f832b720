import assert from 'node:assert/strict';
import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { findPrimaryDriver } from '../../agent/primary/registry.ts';
import { newId } from '../../shared/id.ts';
import { code, root } from './primary-steps.ts';
import { connect, exec, folderPlace, type Place, signal } from './primary-targets.ts';

describe('primary storage: nfs', () => {
  const config = { server: '127.0.0.1', export: '/srv/pool', options: ['soft', 'timeo=10', 'retrans=0', 'port=1', 'proto=tcp'] };
  let place: Place;
  beforeEach(async () => void (place = { ...(await folderPlace()), type: 'nfs', config }));
  afterEach(() => place[Symbol.asyncDispose]());

  it('says at connect time what is missing: the kernel, or else the server; no mount point stays', async () => {
    const kernel = (await readFile('/proc/filesystems', 'utf8')).includes('\tnfs4\n');
    await assert.rejects(connect(place, newId(), true), code(kernel ? 'MOUNT_FAILED' : 'KERNEL_LACKS_NFS'));
    assert.deepEqual(await readdir(place.mountDir), []);
  });

  it('refuses options that are not on the list before anything is mounted', async () => {
    const risky = { ...place, config: { ...config, options: ['suid'] } };
    await assert.rejects(connect(risky, newId(), true), code('MOUNT_OPTION_REFUSED'));
    assert.deepEqual(await readdir(place.mountDir), []);
  });

  if (root)
    it('refuses a mount point on which something else is mounted, and takes that away only when told to disconnect', async () => {
      const id = newId();
      const target = join(place.mountDir, id);
      await mkdir(target);
      await exec('mount', ['-t', 'tmpfs', '--', 'none', target]);
      await assert.rejects(connect(place, id, true), code('POOL_IDENTITY'));
      assert.deepEqual(await readdir(target), []);
      const driver = findPrimaryDriver('nfs');
      const pool = { id, config: driver.config.parse(config) };
      await driver.disconnect?.(pool, { signal, mountDir: place.mountDir });
      await driver.disconnect?.(pool, { signal, mountDir: place.mountDir });
      assert.deepEqual(await readdir(place.mountDir), []);
    });
});
