/** Pools on real kernels, on hosts that joined: shared over NFS, and beside that each host's own. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { FINAL_STATES, type Operation, type Volume } from '../../shared/model.ts';
import type { Api } from '../servers/cistern.ts';
import { until } from '../e2e/house.ts';
import type { LabHost } from './host.ts';
import { identityOf, joinHost, type Lab, metricsOf, openLab } from './lab.ts';

const MiB = 2 ** 20;
/** A host gives a pool that does not answer 90 s. */
const AWAY_MS = 240_000;
/** Programs start thirty times slower there than outside. */
const WORK_MS = 240_000;
/** Far less than any wait for a storage, and far more than a busy host takes to answer. */
const AT_ONCE_MS = 10_000;
/** Where the agent mounts pools. */
const mountOf = (poolId: string): string => `/run/cistern/mnt/${poolId}`;

describe('a lab of real hosts', function () {
  this.timeout(600_000);
  let lab: Lab;
  let api: Api;
  let first: LabHost;
  let second: LabHost;
  let sum: string;

  before(async () => {
    lab = await openLab(['kvm1', 'kvm2']);
    [first, second] = lab.hosts as [LabHost, LabHost];
    ({ api } = lab.cistern);
    await lab.server.run(`mkdir -p /export/pool /srv/vault/in && head -c ${8 * MiB} /dev/urandom >/srv/vault/in/disk.raw`);
    await lab.server.run('mke2fs -q -F -t ext4 -E nodiscard /srv/vault/in/disk.raw');
    [sum] = (await lab.server.run('sha256sum /srv/vault/in/disk.raw')).split(' ') as [string];
  });
  after(() => lab?.[Symbol.asyncDispose]());
  afterEach(async function () {
    if (this.currentTest?.state !== 'failed') return;
    for (const host of lab.hosts)
      console.error(
        `--- ${host.name}\n${await host.run('journalctl -u cistern-agent -n 15 --no-pager -o cat', { reject: false })}`,
      );
  });

  /** The end of an operation, which must be a good one. */
  const done = async (starting: Promise<Operation>): Promise<Operation> => {
    const { id, kind } = await starting;
    const look = async () => {
      const operation = await api.getOperation({ params: { ref: id }, query: { wait: 20 } });
      return FINAL_STATES.includes(operation.state) && operation;
    };
    const ended = await until(`the end of ${kind}`, look, WORK_MS);
    if (ended.state !== 'succeeded') throw new Error(`${kind} is ${ended.state}: ${ended.error?.code} ${ended.error?.detail}`);
    return ended;
  };
  const pool = (name: string) => api.getPrimaryStorage({ params: { ref: name } });
  const statusOn = async (name: string, host: LabHost) => {
    const { id } = await api.getHost({ params: { ref: host.name } });
    return (await pool(name)).hosts.find(({ hostId }) => hostId === id)!;
  };
  const create = async (name: string, request: Partial<Parameters<Api['createVolumes']>[0]['body']>): Promise<Volume> => {
    await done(api.createVolumes({ body: { name, primaryStorage: 'shared', ...request } }));
    return api.getVolume({ params: { ref: name } });
  };
  /** SHA-256 of a volume of the pool `shared`, as a host sees it. */
  const contentOn = async (host: LabHost, { path }: Volume): Promise<string> => {
    const file = `${mountOf((await pool('shared')).id)}/${path}`;
    const line = `qemu-img convert -U -O raw ${file} /var/tmp/seen && sha256sum </var/tmp/seen; rm -f /var/tmp/seen`;
    return (await host.run(line)).split(' ')[0]!;
  };
  const agentPids = () => Promise.all(lab.hosts.map(host => host.run('systemctl show -P MainPID -P NRestarts cistern-agent')));

  it('lets hosts join by one command, each under its unit', async () => {
    await Promise.all(lab.hosts.map(host => joinHost(lab, host)));
    for (const { name } of lab.hosts)
      await until(`${name} is connected`, async () => (await api.getHost({ params: { ref: name } })).status === 'connected');
  });

  it('mounts an NFS pool in the namespace of the host itself', async () => {
    const config = { server: lab.server.address, export: '/pool' };
    await done(api.addPrimaryStorage({ body: { name: 'shared', type: 'nfs', config } }));
    await done(api.addPrimaryStorage({ body: { name: 'own', type: 'local', config: { path: '/var/lib/cistern/pool' } } }));
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
    await done(api.addBackupStorage({ body: { name: 'vault', type: 'sftp', config: { ...login, path: '/srv/vault' } } }));
    const source = { type: 'object' as const, backupStorage: 'vault', path: 'in/disk.raw' };
    await done(api.importImage({ body: { name: 'debian', source, backupStorages: ['vault'] } }));
    const made = await Promise.all(lab.hosts.map(({ name }) => create(`disk-of-${name}`, { image: 'debian', host: name })));
    assert.equal((await api.listCache()).items.length, 1);
    // each seen from the other host
    assert.deepEqual(await Promise.all([contentOn(second, made[0]!), contentOn(first, made[1]!)]), [sum, sum]);
  });

  it('keeps a volume that is open on one host from what the other would do to it offline', async () => {
    const file = `${mountOf((await pool('shared')).id)}/${(await create('busy', { size: 64 * MiB, host: first.name })).path}`;
    await first.run(`systemd-run -q --unit=guest qemu-nbd -k /run/guest.sock -t -f qcow2 ${file}`);
    await until('it is open', async () => (await first.run('test -S /run/guest.sock', { reject: false })) === '' || undefined);
    const resize = () => api.resizeVolume({ params: { ref: 'busy' }, body: { size: 128 * MiB } });
    await assert.rejects(done(resize()), /VOLUME_IN_USE|VOLUME_LOCKED|IN_USE/);
    await first.run('systemctl stop guest');
    await done(resize());
  });

  it('answers at once and works on elsewhere while the NFS server is cut off, and heals when it is back, with no restart', async () => {
    const before = await agentPids();
    const identity = await identityOf(first);
    await lab.server.cut();
    try {
      const refreshing = done(api.refreshPrimaryStorage({ params: { ref: 'shared' } })).catch((error: unknown) => error);
      for (let i = 0; i < 5; i++) assert.match(await metricsOf(first, identity, AT_ONCE_MS), /cistern_/);
      await create('elsewhere', { size: 8 * MiB, primaryStorage: 'own', host: first.name });
      await until('the pool is away', async () => (await statusOn('shared', first)).status === 'disconnected', AWAY_MS);
      assert.match((await statusOn('shared', first)).reason ?? '', /does not answer/);
      assert.equal((await statusOn('own', first)).status, 'connected');
      assert.match(await metricsOf(first, identity, AT_ONCE_MS), /cistern_/);
      await refreshing;
    } finally {
      await lab.server.heal();
    }
    for (const host of lab.hosts)
      await until(
        `${host.name} has the pool again`,
        async () => (await statusOn('shared', host)).status === 'connected',
        AWAY_MS,
      );
    await create('after', { image: 'debian', host: second.name });
    assert.deepEqual(await agentPids(), before);
  });

  it('outlives a power cut of the NFS server', async () => {
    const before = await agentPids();
    await lab.server.powerCut();
    await lab.server.start();
    await lab.server.run('systemctl start nfs-server');
    for (const host of lab.hosts)
      await until(
        `${host.name} has the pool again`,
        async () => (await statusOn('shared', host)).status === 'connected',
        AWAY_MS,
      );
    const volume = await create('later', { image: 'debian', host: first.name });
    assert.equal(await contentOn(second, volume), sum);
    assert.deepEqual(await agentPids(), before);
  });
});
