/** An installation on real hosts: an NFS server, KVM hosts with the agent under systemd, and a controller beside them. */
import { once } from 'node:events';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { get } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { execa } from 'execa';
import type { Identity } from '../../agent/identity.ts';
import { startCistern, type Cistern } from '../servers/cistern.ts';
import { bootHost, type LabHost } from './host.ts';
import { agentDisk, debian } from './image.ts';
import { addressOf, makeNetwork, OUTSIDE } from './network.ts';

export interface Lab extends AsyncDisposable {
  /** File of the key with which root of every host lets one in. */
  key: string;
  cistern: Cistern;
  server: LabHost;
  hosts: LabHost[];
}

const SERVER = 10;
const PORT = 7070;
/** The namespace has this port to itself. */
const CONTROLLER = { listen: '0.0.0.0', port: PORT, publicUrl: `https://${OUTSIDE}:${PORT}` };

/** Everything that was started ends when it is disposed of. */
export async function openLab(names: readonly string[]): Promise<Lab> {
  await using undo = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), 'lab-'));
  undo.defer(() => rm(folder, { recursive: true, force: true }));
  const memory = join(folder, 'memory');
  await mkdir(memory);
  await execa('mount', ['-t', 'tmpfs', 'lab-memory', memory], { timeout: 10_000 });
  undo.defer(async () => void (await execa('umount', ['-l', memory], { timeout: 10_000 })));
  const [disks, agent] = await Promise.all([debian(), agentDisk(folder)]);
  const all = [SERVER, ...names.map((_, i) => SERVER + 1 + i)];
  undo.use(await makeNetwork(all));
  const cistern = undo.use(await startCistern(folder, { hosts: [], controller: CONTROLLER }));
  const boot = async (name: string, number: number): Promise<LabHost> =>
    undo.use(await bootHost({ ...disks, name, number, address: addressOf(number), agent, memory, folder: join(folder, name) }));
  const booted = await Promise.allSettled([boot('nfs', SERVER), ...names.map((name, i) => boot(name, SERVER + 1 + i))]);
  const failed = booted.find(one => one.status === 'rejected');
  if (failed) throw failed.reason;
  const [server, ...hosts] = booted.map(one => (one as PromiseFulfilledResult<LabHost>).value) as [LabHost, ...LabHost[]];
  await server.run('systemctl start nfs-server');
  const kept = undo.move();
  return { key: disks.key, cistern, server, hosts, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

/** Lets a host join as an operator does: by the command that adding it prints. */
export async function joinHost({ cistern }: Lab, host: LabHost): Promise<void> {
  const { url, token, fingerprint } = await cistern.api.inviteHost({ body: { name: host.name } });
  await host.run(`cistern-agent join ${url} --ca-fingerprint ${fingerprint} --token-file -`, { input: token });
}

/** The metrics of the agent of `host`, asked for with its own certificate; fails where they do not come within `ms`. */
export async function metricsOf(host: LabHost, identity: Identity, ms: number): Promise<string> {
  const { ca, certificate: cert, key } = identity;
  const asking = get(`https://${host.address}:7071/metrics`, { ca, cert, key, agent: false, signal: AbortSignal.timeout(ms) });
  const [answer] = (await once(asking, 'response')) as [IncomingMessage];
  return text(answer);
}

export const identityOf = async (host: LabHost): Promise<Identity> =>
  JSON.parse(await host.run('cat /var/lib/cistern-agent/identity')) as Identity;
