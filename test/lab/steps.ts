/** What stories of the lab have in common: an operator's work through the API, waited for as long as slow hosts take. */
import { FINAL_STATES, type Operation, type PrimaryStorage, type Volume } from '../../shared/model.ts';
import { until } from '../e2e/house.ts';
import type { Api } from '../servers/cistern.ts';
import type { LabHost } from './host.ts';
import { joinHost, type Lab } from './lab.ts';

export const MiB = 2 ** 20;
/** A host gives a pool that does not answer 90 s. */
export const AWAY_MS = 240_000;
/** Programs start thirty times slower there than outside. */
const WORK_MS = 240_000;

/** Where the agent mounts pools. */
export const mountOf = (poolId: string): string => `/run/cistern/mnt/${poolId}`;

export type Steps = ReturnType<typeof stepsIn>;

export function stepsIn(lab: Lab) {
  const { api } = lab.cistern;
  const ended = async (id: string, what: string): Promise<Operation> => {
    const look = async () => {
      const operation = await api.getOperation({ params: { ref: id }, query: { wait: 20 } });
      return FINAL_STATES.includes(operation.state) && operation;
    };
    return until(`the end of ${what}`, look, WORK_MS);
  };
  /** The end of an operation, which must be a good one. */
  const done = async (starting: Promise<Operation>): Promise<Operation> => {
    const { id, kind } = await starting;
    const operation = await ended(id, kind);
    if (operation.state === 'succeeded') return operation;
    throw new Error(`${kind} is ${operation.state}: ${operation.error?.code} ${operation.error?.detail}`);
  };
  const pool = (name: string): Promise<PrimaryStorage> => api.getPrimaryStorage({ params: { ref: name } });
  const statusOn = async (name: string, host: LabHost) => {
    const { id } = await api.getHost({ params: { ref: host.name } });
    return (await pool(name)).hosts.find(({ hostId }) => hostId === id)!;
  };
  return {
    api,
    ended,
    done,
    pool,
    statusOn,
    /** Waits until a host sees a pool, or does not; returns why. */
    async turns(name: string, host: LabHost, status: 'connected' | 'disconnected'): Promise<string> {
      let seen = await statusOn(name, host);
      const look = async () => (seen = await statusOn(name, host)).status === status;
      await until(`${host.name} has ${name} ${status}`, look, AWAY_MS).catch((cause: unknown) => {
        throw new Error(`${String(cause)}; it is ${seen.status}: ${seen.reason}`, { cause });
      });
      return seen.reason ?? '';
    },
    async join(): Promise<void> {
      await Promise.all(lab.hosts.map(host => joinHost(lab, host)));
      for (const { name } of lab.hosts)
        await until(`${name} is connected`, async () => (await api.getHost({ params: { ref: name } })).status === 'connected');
    },
    async create(name: string, request: Partial<Parameters<Api['createVolumes']>[0]['body']>): Promise<Volume> {
      await done(api.createVolumes({ body: { name, primaryStorage: 'shared', ...request } }));
      return api.getVolume({ params: { ref: name } });
    },
    /** SHA-256 of what a volume of a pool shows on a host. */
    async contentOn(host: LabHost, { path, primaryStorageId }: Volume): Promise<string> {
      const file = `${mountOf(primaryStorageId)}/${path}`;
      const line = `qemu-img convert -U -O raw ${file} /var/tmp/seen && sha256sum </var/tmp/seen; rm -f /var/tmp/seen`;
      return (await host.run(line)).split(' ')[0]!;
    },
    /** That the agents were neither restarted nor have died. */
    agents: () => Promise.all(lab.hosts.map(host => host.run('systemctl show -P MainPID -P NRestarts cistern-agent'))),
    /** What the agents said last, on stderr. */
    async tell(): Promise<void> {
      for (const host of lab.hosts) {
        const said = await host.run('journalctl -u cistern-agent -n 15 --no-pager -o cat', { reject: false });
        console.error(`--- ${host.name}\n${said}`);
      }
    },
  };
}
