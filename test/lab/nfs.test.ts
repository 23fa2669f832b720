/** NFS in all its versions, and mount points that show something else than they should. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { until } from '../e2e/house.ts';
import type { LabHost } from './host.ts';
import { type Lab, openLab } from './lab.ts';
import { AWAY_MS, MiB, mountOf, type Steps, stepsIn } from './steps.ts';

const VERSIONS = ['3', '4.0', '4.1', '4.2'];

describe('NFS pools on a real host', function () {
  this.timeout(600_000);
  let lab: Lab;
  let host: LabHost;
  let steps: Steps;
  let api: Steps['api'];

  before(async () => {
    lab = await openLab(['kvm1']);
    [host] = lab.hosts as [LabHost];
    steps = stepsIn(lab);
    ({ api } = steps);
    const folders = VERSIONS.map(version => `/export/v${version}`).join(' ');
    await lab.server.run(`mkdir -p ${folders} /export/pool /srv/vault/in`);
    await lab.server.run(
      `head -c ${64 * MiB} /dev/urandom >/srv/vault/in/disk.raw && mke2fs -q -F -t ext4 -E nodiscard /srv/vault/in/disk.raw`,
    );
    await steps.join();
  });
  after(() => lab?.[Symbol.asyncDispose]());
  afterEach(async function () {
    if (this.currentTest?.state === 'failed') await steps.tell();
  });

  const mounts = () => host.run('cat /proc/1/mountinfo');
  const server = (line: string) => lab.server.run(line);
  const maintain = (ref: string) => steps.done(api.maintainPrimaryStorage({ params: { ref }, body: {} }));
  const enable = async (ref: string) => {
    await api.updatePrimaryStorage({ params: { ref }, body: { state: 'enabled' } });
    await steps.turns(ref, host, 'connected');
  };

  for (const version of VERSIONS)
    it(`speaks version ${version}`, async () => {
      // version 3 knows the server's own paths, version 4 those below its root
      const config = { server: lab.server.address, export: `${version === '3' ? '/export' : ''}/v${version}`, version };
      const name = `v${version.replace('.', '-')}`;
      await steps.done(api.addPrimaryStorage({ body: { name, type: 'nfs', config } }));
      const { id } = await steps.pool(name);
      assert.match(await mounts(), new RegExp(` ${mountOf(id)} .* - nfs4? .*vers=${version.replace('.', '\\.')},`));
      await steps.create(`on-${name}`, { size: 8 * MiB, primaryStorage: name });
      await steps.done(api.deleteVolume({ params: { ref: `on-${name}` } }));
      await steps.done(api.deletePrimaryStorage({ params: { ref: name } }));
      assert.ok(!(await mounts()).includes(id), 'it is still mounted');
      assert.equal(await server(`ls -A /export/v${version}`), '');
    });

  it('is unmounted for maintenance, unless a VM keeps it busy, and mounted again after that', async () => {
    const config = { server: lab.server.address, export: '/pool' };
    await steps.done(api.addPrimaryStorage({ body: { name: 'shared', type: 'nfs', config } }));
    const { path, primaryStorageId: id } = await steps.create('kept', { size: 8 * MiB });
    await host.run(`systemd-run -q --unit=guest qemu-nbd -k /run/guest.sock -t -f qcow2 ${mountOf(id)}/${path}`);
    await until('it is open', async () => (await host.run('test -S /run/guest.sock', { reject: false })) === '' || undefined);
    await assert.rejects(maintain('shared'), /IN_USE/);
    assert.equal((await steps.pool('shared')).state, 'enabled');
    await host.run('systemctl stop guest');
    await maintain('shared');
    assert.ok(!(await mounts()).includes(id), 'it is still mounted');
    await enable('shared');
    assert.ok((await mounts()).includes(id), 'it is not mounted');
  });

  it('is not taken for the pool where the mount point shows nothing, or something else', async () => {
    const { id } = await steps.pool('shared');
    const refresh = () => steps.done(api.refreshPrimaryStorage({ params: { ref: 'shared' } })).catch(() => undefined);
    await host.run(`mount -t tmpfs other ${mountOf(id)}`);
    await refresh();
    assert.match(await steps.turns('shared', host, 'disconnected'), /other \(tmpfs\) is mounted there|pool\.json/);
    const refused = steps.create('nowhere', { size: MiB });
    await assert.rejects(refused, /NO_STORAGE|not connected/);
    assert.equal(await host.run(`ls -A ${mountOf(id)}`), '', 'something was made in it');
    await host.run(`umount ${mountOf(id)}`);
    await steps.turns('shared', host, 'connected');
  });

  it('turns away where its files have become stale, and is back by itself with them', async () => {
    const before = await steps.agents();
    await server('cp -a /export/pool /export/aside && rm -rf /export/pool && mkdir /export/pool');
    const { id } = await steps.pool('shared');
    await steps.done(api.refreshPrimaryStorage({ params: { ref: 'shared' } })).catch(() => undefined);
    assert.match(await steps.turns('shared', host, 'disconnected'), /\S/);
    assert.equal(await server('ls -A /export/pool'), '', 'something was made in what took its place');
    await server('rmdir /export/pool && mv /export/aside /export/pool');
    await steps.turns('shared', host, 'connected');
    assert.match((await api.getVolume({ params: { ref: 'kept' } })).path!, /qcow2/);
    assert.equal(await host.run(`test -e ${mountOf(id)}/pool.json && echo there`), 'there');
    assert.deepEqual(await steps.agents(), before);
  });

  it('gets its image also where the power of the host is cut in the middle', async () => {
    const [type, key] = (await server('cat /etc/ssh/ssh_host_ed25519_key.pub')).split(' ');
    const privateKey = await readFile(lab.key, 'utf8');
    const login = { host: lab.server.address, user: 'root', hostKey: `${type} ${key}`, privateKey };
    await steps.done(api.addBackupStorage({ body: { name: 'vault', type: 'sftp', config: { ...login, path: '/srv/vault' } } }));
    const source = { type: 'object' as const, backupStorage: 'vault', path: 'in/disk.raw' };
    await steps.done(api.importImage({ body: { name: 'debian', source, backupStorages: ['vault'] } }));
    const { id } = await api.createVolumes({ body: { name: 'late', image: 'debian', primaryStorage: 'shared' } });
    await until('it is on its way', async () => (await server('ls /export/pool/tmp')).includes('fill-') || undefined, AWAY_MS);
    await host.powerCut();
    await host.start();
    assert.equal((await steps.ended(id, 'volume.create')).state, 'succeeded');
    const [sum] = (await server('sha256sum /srv/vault/in/disk.raw')).split(' ');
    assert.equal(await steps.contentOn(host, await api.getVolume({ params: { ref: 'late' } })), sum);
    assert.equal(await server('ls /export/pool/tmp'), '', 'something was left behind');
  });
});
