import { sql } from 'kysely';
import { newId } from '../../shared/id.ts';
import { CisternError } from '../../shared/errors.ts';
import type { Capacity, Facts } from '../../shared/model.ts';
import { elapsedNow } from '../db/elapsed.ts';
import type { Trx } from '../db/database.ts';
import { findHost, findPrimaryStorage } from '../db/find.ts';
import { LEVEL_WORDS, levelOf } from '../policy/level.ts';
import type { Row } from '../db/schema.ts';
import type { Services } from '../services.ts';
import { meetAgent } from './meet.ts';
import { poolRef } from './refs.ts';

/** A pool that does not connect within this is disconnected. */
const CONNECT_SECONDS = 90;
/** How long a controller that starts waits for what its hosts have to say; those that are away are asked when they are back. */
const MEET_MS = 3000;

/** Reads an agent's facts, tells it where to report, and marks the host as connected. Throws what the agent or the network said. */
export async function connectHost(services: Services, hostId: string): Promise<Facts> {
  const { db, fleet, secrets } = services;
  const host = await findHost(db.read, hostId);
  const agent = await fleet.client(hostId);
  const facts = await agent.facts();
  const { position: seen, epoch } = await agent.getController();
  fleet.isRun(hostId, epoch);
  const position = await meetAgent(services, host, seen);
  const how =
    host.generation === null
      ? { url: services.publicUrl(), token: secrets.open<string>(host.report_sealed, `hosts.report_sealed/${hostId}`) }
      : { url: services.secureUrl() };
  await agent.setController({ body: { ...how, hostId, ...(position && { position }) } });
  await db.write(async trx => {
    const now = new Date().toISOString();
    // as it is now: another attempt may have connected it meanwhile
    const { status } = await findHost(trx, hostId);
    await trx
      .updateTable('hosts')
      .set({
        status: 'connected',
        reason: null,
        facts_json: JSON.stringify(facts),
        last_seen_at: now,
        ...(position && { adopt: 0 }),
      })
      .where('id', '=', hostId)
      .execute();
    if (status !== 'connected')
      await services.events.append(trx, 'host.connected', { kind: 'host', id: hostId }, `host ${host.name} is connected`);
  });
  return facts;
}

/** Notes that something reports in the name of a host that is not the agent at its address. */
export async function noteStray({ db, events, log }: Services, hostId: string, epoch: number): Promise<void> {
  log.error({ hostId, epoch }, 'reports come in the name of a host that are not of the agent at its address; they are refused');
  await db.write(async trx => {
    const { name, url } = await findHost(trx, hostId);
    const words = `reports come in the name of host ${name} from run ${epoch} of an agent, which is not the one at ${url}: a copy of its machine, most likely; they are refused`;
    await events.append(trx, 'host.copied', { kind: 'host', id: hostId }, words);
  });
}

/** Connects to all hosts that were connected, before anything of an earlier run is taken up again. */
export async function meetAll(services: Services): Promise<void> {
  const hosts = await services.db.read.selectFrom('hosts').select('id').where('status', '=', 'connected').execute();
  const met = hosts.map(({ id }) =>
    connectHost(services, id).catch(error =>
      services.log.info({ err: error, hostId: id }, 'a host could not be met at the start'),
    ),
  );
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise(resolve => (timer = setTimeout(resolve, MEET_MS)));
  await Promise.race([Promise.all(met), late]);
  clearTimeout(timer);
}

/** Connects a host to every primary storage of its cluster; each on its own, so that a dead one holds up none of the others. */
export async function connectPools(services: Services, hostId: string, signal: AbortSignal): Promise<void> {
  const rows = await services.db.read
    .selectFrom('pools')
    .innerJoin('primary_storages', 'primary_storages.id', 'pools.primary_storage_id')
    .select('primary_storages.id')
    .where('pools.host_id', '=', hostId)
    .where('primary_storages.state', '=', 'enabled')
    .execute();
  await Promise.all(rows.map(row => connectPool(services, row.id, hostId, signal)));
}

/**
 * Connects again what was found away, or was never connected since its host did not work when the storage was added. A storage that
 * is only being added is left alone.
 */
export async function reconnectPools(services: Services, signal: AbortSignal): Promise<void> {
  const rows = await services.db.read
    .selectFrom('pools')
    .innerJoin('hosts', 'hosts.id', 'pools.host_id')
    .innerJoin('primary_storages', 'primary_storages.id', 'pools.primary_storage_id')
    .select(['primary_storages.id as storage', 'hosts.id as host'])
    .where('hosts.status', '=', 'connected')
    .where('hosts.state', '<>', 'disabled')
    .where('primary_storages.state', '=', 'enabled')
    .where(e =>
      e.or([
        e('pools.status', '=', 'disconnected'),
        e.and([
          e('pools.status', '=', 'connecting'),
          e.not(
            e.exists(
              e
                .selectFrom('operations')
                .select('operations.id')
                .where('operations.finished_at', 'is', null)
                .where('operations.kind', '=', 'primary-storage.add')
                .where('operations.resources_json', 'like', e => sql`'%"' || ${e.ref('primary_storages.id')} || '"%'`),
            ),
          ),
        ]),
      ]),
    )
    .execute();
  await Promise.all(rows.map(row => connectPool(services, row.storage, row.host, signal)));
}

/** Connects a host to one primary storage and notes how that went; never throws for what storage or host say. */
export async function connectPool(services: Services, storageId: string, hostId: string, signal: AbortSignal): Promise<void> {
  const bounded = AbortSignal.any([signal, AbortSignal.timeout(CONNECT_SECONDS * 1000)]);
  try {
    const out = await services.fleet.run(
      hostId,
      newId(),
      { kind: 'pool.connect', input: { pool: await poolRef(services, storageId), initialize: false } },
      { signal: bounded, patienceSeconds: 0 },
    );
    await services.db.write(trx => markPool(trx, services, storageId, hostId, out.capacity, null));
  } catch (error) {
    if (signal.aborted) throw error;
    const reason = bounded.aborted
      ? `connecting took longer than ${CONNECT_SECONDS} s: the storage does not answer`
      : (error as Error).message;
    services.log.warn({ err: error, storageId, hostId }, 'a host could not connect to a primary storage');
    await services.db.write(trx => markPool(trx, services, storageId, hostId, null, reason));
  }
}

/** Notes in the row of a pool that it is connected, with its capacity, or why it is not; an event where that changed. */
export async function markPool(
  trx: Trx,
  services: Services,
  storageId: string,
  hostId: string,
  capacity: Capacity | null,
  reason: string | null,
): Promise<void> {
  const old = await trx
    .selectFrom('pools')
    .select('status')
    .where('primary_storage_id', '=', storageId)
    .where('host_id', '=', hostId)
    .executeTakeFirst();
  if (!old) return;
  const status = capacity ? ('connected' as const) : ('disconnected' as const);
  const measured = capacity && {
    total: capacity.total,
    available: capacity.available,
    measured_at: new Date().toISOString(),
    measured_elapsed: elapsedNow(),
  };
  await trx
    .updateTable('pools')
    .set({ status, reason, ...measured })
    .where('primary_storage_id', '=', storageId)
    .where('host_id', '=', hostId)
    .execute();
  const storage = await findPrimaryStorage(trx, storageId);
  if (capacity) await noteLevel(trx, services, storage, hostId, capacity);
  if (old.status === status) return;
  const host = await findHost(trx, hostId);
  await services.events.append(
    trx,
    `primary-storage.${status}`,
    { kind: 'primary-storage', id: storageId },
    `primary storage ${storage.name} is ${status} on host ${host.name}${reason ? `: ${reason}` : ''}`,
  );
}

/** An event where a pool got fuller than a threshold, or has room again. Of a shared one all hosts see the same. */
async function noteLevel(
  trx: Trx,
  { config, events }: Services,
  storage: Row<'primary_storages'>,
  hostId: string,
  capacity: Capacity,
): Promise<void> {
  const parts = trx.selectFrom('pools').select(['host_id', 'level']).where('primary_storage_id', '=', storage.id);
  const old = (await (storage.shared ? parts : parts.where('host_id', '=', hostId)).execute()).map(row => row.level);
  const worst = (['stop', 'warn', 'ok'] as const).find(level => old.includes(level)) ?? 'ok';
  const level = levelOf(capacity, worst, config);
  const rows = trx.updateTable('pools').set({ level }).where('primary_storage_id', '=', storage.id);
  await (storage.shared ? rows : rows.where('host_id', '=', hostId)).execute();
  if (level === worst) return;
  const on = storage.shared ? '' : ` on host ${(await findHost(trx, hostId)).name}`;
  const used = Math.round((1 - capacity.available / capacity.total) * 100);
  const words = `primary storage ${storage.name}${on} ${LEVEL_WORDS[level]}: ${used} % are used`;
  await events.append(
    trx,
    `primary-storage.${level === 'ok' ? 'room' : level}`,
    { kind: 'primary-storage', id: storage.id },
    words,
  );
}

/** Notes that an agent does not answer; its pools stay as they were known and count as disconnected with it. */
export async function markHostDown(services: Services, hostId: string, error: unknown): Promise<void> {
  const reason = error instanceof CisternError ? error.message : String(error);
  await services.db.write(async trx => {
    const host = await findHost(trx, hostId);
    await trx.updateTable('hosts').set({ status: 'disconnected', reason }).where('id', '=', hostId).execute();
    if (host.status !== 'disconnected')
      await services.events.append(
        trx,
        'host.disconnected',
        { kind: 'host', id: hostId },
        `host ${host.name} is disconnected: ${reason}`,
      );
  });
}
