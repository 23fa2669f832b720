/** What must hold once every operation has ended: nothing is left, nothing is lost, and every figure is right. */
import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { agentRoutes } from '../../../shared/contract/agent.ts';
import { createClient } from '../../../shared/http/client.ts';
import type { PoolHost } from '../../../shared/model.ts';
import { done, WAIT } from '../../servers/cistern.ts';
import { differences } from '../../e2e/ledger.ts';
import { argv } from './blow.ts';
import { HOSTS, POOL, SPARE, type Stage, STORES } from './stage.ts';

/** What is removed by the next sweep, and who is back by the next heartbeat, is there soon. */
const SETTLE_MS = 20_000;

/** Looks until there is nothing to complain of, or the time for that is over; returns the last complaints. */
export async function settle(stage: Stage): Promise<string[]> {
  const deadline = performance.now() + SETTLE_MS;
  for (;;) {
    const complaints = await audit(stage).catch((error: unknown) => [`the audit failed: ${String(error)}`]);
    if (complaints.length === 0 || performance.now() > deadline) return complaints;
    await delay(150);
  }
}

async function audit(stage: Stage): Promise<string[]> {
  const away = (await stage.hosts()).filter(host => host.status !== 'connected').map(host => `${host.name} is ${host.status}: ${host.reason}`); // prettier-ignore
  if (away.length > 0) return away;
  return [
    ...(await stray(stage)),
    ...(await measured(stage)),
    ...differences(await placesOf(stage)),
    ...goneWithTheirStorage(
      stage,
      (await stage.api.listPrimaryStorages()).items.map(storage => storage.name),
    ),
    ...(await idle(stage)),
    ...temporary(stage),
  ];
}

async function placesOf(stage: Stage) {
  const { folder } = stage.house.cistern;
  const names = new Map((await stage.hosts()).map(host => [host.id, host.name]));
  const storages = (await stage.api.listPrimaryStorages()).items;
  const stores = (await stage.api.listBackupStorages()).items;
  return {
    controller: join(folder, 'controller/state'),
    agents: [...HOSTS, SPARE].map(name => join(folder, name, 'state')),
    pools: Object.fromEntries(
      storages.flatMap(({ id, name, hosts }) => hosts.map(({ hostId }) => [`${id}/${hostId}`, stage.pool(names.get(hostId)!, name)])), // prettier-ignore
    ),
    stores: Object.fromEntries(stores.map(({ id, name }) => [id, stage.store(name)])),
  };
}

/** Measures each pool, and compares what the API says with what the files take and the rows say. */
async function measured(stage: Stage): Promise<string[]> {
  const complaints: string[] = [];
  const hosts = new Map((await stage.hosts()).map(host => [host.id, host.name]));
  for (const { id, name } of (await stage.api.listPrimaryStorages()).items) {
    await done(stage.api.refreshPrimaryStorage({ params: { ref: id } }, WAIT));
    const volumes = (await stage.api.listVolumes({ query: { primaryStorage: id, limit: 1000 } })).items;
    const storage = await stage.api.getPrimaryStorage({ params: { ref: id } });
    for (const part of storage.hosts) {
      const where = `${name} on ${hosts.get(part.hostId)}`;
      if (part.status !== 'connected') complaints.push(`${where} is ${part.status}: ${part.reason}`);
      const here = volumes.filter(volume => volume.hostId === part.hostId && volume.status !== 'deleted');
      const expected = {
        reserved: 0,
        provisioned: here.reduce((sum, volume) => sum + volume.size, 0),
        cache: taken(join(stage.pool(hosts.get(part.hostId)!, name), 'cache')),
        trash: taken(join(stage.pool(hosts.get(part.hostId)!, name), 'trash')),
      };
      complaints.push(...wrong(where, part, expected));
    }
  }
  return complaints;
}

const wrong = (where: string, { capacity }: PoolHost, expected: Record<string, number>): string[] =>
  Object.entries(expected)
    .filter(([key, bytes]) => capacity?.[key as 'cache'] !== bytes)
    .map(([key, bytes]) => `${where}: ${key} is said to be ${capacity?.[key as 'cache']}, and is ${bytes}`);

/** Bytes of the blocks of all files two levels below. */
function taken(folder: string): number {
  const files = (existsSync(folder) ? readdirSync(folder) : []).flatMap(entry =>
    readdirSync(join(folder, entry)).map(file => join(folder, entry, file)),
  );
  return files.reduce((sum, file) => sum + lstatSync(file).blocks * 512, 0);
}

/** A folder that was a pool, or should have become one, is empty or gone. */
function goneWithTheirStorage(stage: Stage, known: string[]): string[] {
  return [...HOSTS, SPARE].flatMap(host =>
    readdirSync(join(stage.house.cistern.folder, host))
      .filter(name => name.startsWith('pool-') && name !== `pool-${POOL}` && !known.includes(name.slice('pool-'.length)))
      .flatMap(name =>
        readdirSync(join(stage.house.cistern.folder, host, name)).map(left => `${host}/${name}/${left} is left of a storage`),
      ),
  );
}

/** Nobody is at work, says what is asked for figures; and no journal had to be set aside. */
async function idle(stage: Stage): Promise<string[]> {
  const complaints: string[] = [];
  const text = (await stage.api.metrics()) as unknown as string;
  for (const line of text.split('\n'))
    if (/^cistern_controller_operations_(running|queued)\b.* [1-9]/.test(line)) complaints.push(`the controller's metrics: ${line}`); // prettier-ignore
  for (const { name } of await stage.hosts()) {
    const { url, token } = stage.service(name);
    const agent = createClient(agentRoutes, { baseUrl: url, token });
    try {
      const figures = (await agent.metrics()) as unknown as string;
      for (const line of figures.split('\n'))
        if (/^cistern_agent_(tasks_running|reports_pending)\b.* [1-9]/.test(line)) complaints.push(`the metrics of ${name}: ${line}`); // prettier-ignore
    } finally {
      agent.close();
    }
    const state = join(stage.house.cistern.folder, name, 'state');
    complaints.push(...readdirSync(state).filter(file => /corrupt|unreadable/.test(file)).map(file => `${state}/${file} was set aside`)); // prettier-ignore
  }
  for (const name of STORES) if (!existsSync(stage.store(name))) complaints.push(`${name} is gone`);
  return complaints;
}

/** Keys of ssh and the like, beyond the folder that each living worker has of its own, which is empty when nothing is at work. */
function temporary(stage: Stage): string[] {
  const { folder } = stage.house.cistern;
  const ours = readdirSync(tmpdir()).filter(name => /^(cistern-ssh|overlay-oracle)-/.test(name));
  const inStates = [...HOSTS, SPARE].flatMap(host => {
    const at = join(folder, host, 'state/tmp');
    return (existsSync(at) ? readdirSync(at) : []).flatMap(name => readdirSync(join(at, name)).map(file => join(at, name, file)));
  });
  return [...ours, ...inStates].map(name => `${name} is a temporary file that is left`);
}

/** Processes that nobody waits for: workers without their agent, and tools without their worker. */
async function stray(stage: Stage): Promise<string[]> {
  const { folder } = stage.house.cistern;
  const agents = new Set([...HOSTS, SPARE].map(name => stage.service(name).pid));
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .flatMap(name => {
      const pid = Number(name);
      const words = argv(pid);
      const isWorker = words.some(word => word.endsWith('agent/worker/main.ts')) && below(pid, folder);
      const isTool = /(^|\/)(qemu-img|xz|sync|prlimit|ssh)$/.test(words[0] ?? '') && words.join(' ').includes(folder);
      if (isTool) return [`process ${pid} still runs: ${words.join(' ')}`];
      return isWorker && !agents.has(parentOf(pid)) ? [`worker ${pid} outlives its agent: ${words.join(' ')}`] : [];
    });
}

function below(pid: number, folder: string): boolean {
  try {
    return readlinkSync(`/proc/${pid}/cwd`).startsWith(folder);
  } catch {
    return false; // it has ended meanwhile
  }
}

function parentOf(pid: number): number {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
  } catch {
    return 0;
  }
}
