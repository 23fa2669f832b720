/** Pools on real kernels, on hosts that joined: shared over NFS, and beside that each host's own. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import type { Api } from '../servers/cistern.ts';
import { until } from '../e2e/house.ts';
import type { LabHost } from './host.ts';
import { identityOf, type Lab, metricsOf, openLab } from './lab.ts';
import { MiB, mountOf, type Steps, stepsIn } from './steps.ts';

/** Far less than any wait for a storage, and far more than a busy host takes to answer. */
const AT_ONCE_MS = 10_000;
describe('a lab of real hosts', function () {
  this.timeout(600_000);
  let lab: Lab;
  let api: Api;
  let first: LabHost;
  let second: LabHost;
  let sum: string;
  let steps: Steps;

  before(async () => {
    lab = await openLab(['kvm1', 'kvm2']);
    [first, second] = lab.hosts as [LabHost, LabHost];
    steps = stepsIn(lab);
    ({ api } = steps);
    await lab.server.run(`mkdir -p /export/pool /srv/vault/in && head -c ${8 * MiB} /dev/urandom >/srv/vault/in/disk.raw`);
    await lab.server.run('mke2fs -q -F -t ext4 -E nodiscard /srv/vault/in/disk.raw');
    [sum] = (await lab.server.run('sha256sum /srv/vault/in/disk.raw')).split(' ') as [string];
  });
  after(() => lab?.[Symbol.asyncDispose]());
  afterEach(async function () {
    if (this.currentTest?.state === 'failed') await steps.tell();
  });

  it('lets hosts join by one command, each under its unit', async () => {
    await steps.join();
  });

  it('mounts an NFS pool in the namespace of the host itself', async () => {
    const config = { server: lab.server.address, export: '/pool' };
    await steps.done(api.addPrimaryStorage({ body: { name: 'shared', type: 'nfs', config } }));
    await steps.done(api.addPrimaryStorage({ body: { name: 'own', type: 'local', config: { path: '/var/lib/cistern/pool' } } }));
    for (const host of lab.hosts) assert.match(await host.run('cat /proc/1/mountinfo'), / - nfs4 10\.77\.0\.10:\/pool /);
  });

  it('clones on one host what the other has cached, fetched once where both ask at the same time', async () => {
    const [type, key] = (await lab.server.run('cat /etc/ssh/ssh_host_ed25519_key.pub')).split(' ');
    const login = {
      host: lab.server.address,
      user: 'root',
      hostKey: `${type} ${key}`,
      privateKey: await readFile(lab.key, 'utf8'),
    };
    await steps.done(api.addBackupStorage({ body: { name: 'vault', type: 'sftp', config: { ...login, path: '/srv/vault' } } }));
    const source = { type: 'object' as const, backupStorage: 'vault', path: 'in/disk.raw' };
    await steps.done(api.importImage({ body: { name: 'debian', source, backupStorages: ['vault'] } }));
    const made = await Promise.all(lab.hosts.map(({ name }) => steps.create(`disk-of-${name}`, { image: 'debian', host: name })));
    assert.equal((await api.listCache()).items.length, 1);
    // each seen from the other host
    assert.deepEqual(await Promise.all([steps.contentOn(second, made[0]!), steps.contentOn(first, made[1]!)]), [sum, sum]);
  });

  it('keeps a volume that is open on one host from what the other would do to it offline', async () => {
    const file = `${mountOf((await steps.pool('shared')).id)}/${(await steps.create('busy', { size: 64 * MiB, host: first.name })).path}`;
    await first.run(`systemd-run -q --unit=guest qemu-nbd -k /run/guest.sock -t -f qcow2 ${file}`);
    await until('it is open', async () => (await first.run('test -S /run/guest.sock', { reject: false })) === '' || undefined);
    const resize = () => api.resizeVolume({ params: { ref: 'busy' }, body: { size: 128 * MiB } });
    await assert.rejects(steps.done(resize()), /VOLUME_IN_USE|VOLUME_LOCKED|IN_USE/);
    await first.run('systemctl stop guest');
    await steps.done(resize());
  });

  it('answers at once and works on elsewhere while the NFS server is cut off, and heals when it is back, with no restart', async () => {
    const before = await steps.agents();
    const identity = await identityOf(first);
    await lab.server.cut();
    try {
      const refreshing = steps.done(api.refreshPrimaryStorage({ params: { ref: 'shared' } })).catch((error: unknown) => error);
      for (let i = 0; i < 5; i++) assert.match(await metricsOf(first, identity, AT_ONCE_MS), /cistern_/);
      await steps.create('elsewhere', { size: 8 * MiB, primaryStorage: 'own', host: first.name });
      assert.match(await steps.turns('shared', first, 'disconnected'), /does not answer/);
      assert.equal((await steps.statusOn('own', first)).status, 'connected');
      assert.match(await metricsOf(first, identity, AT_ONCE_MS), /cistern_/);
      await refreshing;
    } finally {
      await lab.server.heal();
    }
    for (const host of lab.hosts) await steps.turns('shared', host, 'connected');
    await steps.create('after', { image: 'debian', host: second.name });
    assert.deepEqual(await steps.agents(), before);
  });

  it('outlives a power cut of the NFS server', async () => {
    const before = await steps.agents();
    await lab.server.powerCut();
    await lab.server.start();
    await lab.server.run('systemctl start nfs-server');
    for (const host of lab.hosts) await steps.turns('shared', host, 'connected');
    const volume = await steps.create('later', { image: 'debian', host: first.name });
    assert.equal(await steps.contentOn(second, volume), sum);
    assert.deepEqual(await steps.agents(), before);
  });
});
