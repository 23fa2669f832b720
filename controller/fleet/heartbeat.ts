import { setTimeout as delay } from 'node:timers/promises';
import { CisternError } from '../../shared/errors.ts';
import { sweepGarbage } from '../operations/garbage.ts';
import type { Services } from '../services.ts';
import { connectHost, connectPools, markHostDown } from './connect.ts';

/** So many heartbeats missed in a row make a host disconnected. */
const MISSES = 3;

/**
 * Asks every agent how it is, each in a loop of its own, and connects hosts and their pools again after they were away or their
 * agent was restarted. Runs until `signal` is aborted.
 */
export async function keepHeartbeats(services: Services, signal: AbortSignal): Promise<void> {
  const loops = new Map<string, Promise<void>>();
  const returning = new Set<Promise<void>>();
  const every = services.config.heartbeatSeconds * 1000;
  while (!signal.aborted) {
    const hosts = await hostIds(services);
    for (const { id } of hosts) {
      if (loops.has(id)) continue;
      const loop = watchHost(services, id, signal, returning)
        .catch(error => {
          if (!signal.aborted)
            services.log.error({ err: error, hostId: id }, 'the heartbeat of a host failed unexpectedly; it starts again');
        })
        .finally(() => loops.delete(id));
      loops.set(id, loop);
    }
    await delay(every, undefined, { signal }).catch(() => {});
  }
  await Promise.allSettled(loops.values());
  await Promise.allSettled(returning);
}

/** None where the database cannot be read now: it is asked again at the next beat. */
const hostIds = ({ db, log }: Services): Promise<{ id: string }[]> =>
  db.read
    .selectFrom('hosts')
    .select('id')
    .where('status', '<>', 'connecting')
    .execute()
    .catch((error: unknown) => {
      log.error({ err: error }, 'the hosts cannot be read from the database; they are asked for again');
      return [];
    });

/** Follows one host until it is removed. */
async function watchHost(services: Services, hostId: string, signal: AbortSignal, returning: Set<Promise<void>>): Promise<void> {
  const every = services.config.heartbeatSeconds * 1000;
  let misses = 0;
  // the first answer after a start of the controller connects everything again: it may have missed what happened meanwhile
  let startedAt: string | undefined;
  while (!signal.aborted) {
    const host = await services.db.read
      .selectFrom('hosts')
      .select(['status', 'name'])
      .where('id', '=', hostId)
      .executeTakeFirst();
    if (!host) return;
    try {
      const agent = await services.fleet.client(hostId);
      const facts = await agent.facts({}, { signal, timeoutSeconds: Math.max(2, services.config.heartbeatSeconds) });
      misses = 0;
      if (host.status !== 'connected' || facts.startedAt !== startedAt) {
        await connectHost(services, hostId);
        startedAt = facts.startedAt;
        // not waited for: a dead storage must not hold up the heartbeat, which tells whether the host lives
        const back = welcome(services, hostId, signal).finally(() => returning.delete(back));
        returning.add(back);
      } else {
        await services.db.write(trx =>
          trx.updateTable('hosts').set({ last_seen_at: new Date().toISOString() }).where('id', '=', hostId).execute(),
        );
      }
    } catch (error) {
      if (signal.aborted) return;
      // that the host's answer cannot be written down says nothing of the host
      if (error instanceof CisternError && error.code === 'DATABASE_UNAVAILABLE') throw error;
      misses++;
      services.metrics.heartbeatFailures.inc({ host: host.name });
      const final = error instanceof CisternError && error.code !== 'HOST_UNREACHABLE' && error.code !== 'TIMEOUT';
      if (misses >= MISSES || final) await markHostDown(services, hostId, error);
    }
    await delay(every, undefined, { signal }).catch(() => {});
  }
}

/** Connects the pools of a host that is back, and removes what operations had to leave there while it was away. */
async function welcome(services: Services, hostId: string, signal: AbortSignal): Promise<void> {
  try {
    await connectPools(services, hostId, signal);
    await sweepGarbage(services, signal, hostId);
  } catch (error) {
    if (!signal.aborted) services.log.warn({ err: error, hostId }, 'the pools of a host that is back were not all seen to');
  }
}
