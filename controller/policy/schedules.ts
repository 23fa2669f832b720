import { sql } from 'kysely';
import type { Engine } from '../operations/engine.ts';
import { reconnectPools } from '../fleet/connect.ts';
import { sweepGarbage } from '../operations/garbage.ts';
import type { Services } from '../services.ts';
import { backUp } from '../db/backups.ts';
import { emptyTrash } from '../workflows/trash.ts';
import { everySecond } from './cron.ts';
import { evictUnderPressure } from './eviction.ts';
import { scrubCaches } from './scrub.ts';
import { measurePool, measureStores } from './measure.ts';
import { createUploadSweep } from './uploads.ts';

const sweepUploads = createUploadSweep();

/** The regular work, by name. Each may also be run by hand. */
export const JOBS: Record<
  'capacity' | 'reconnect' | 'trash' | 'cache' | 'prune' | 'backup' | 'scrub' | 'uploads',
  (services: Services, engine: Engine, signal: AbortSignal) => Promise<void>
> = {
  async capacity(services, _engine, signal) {
    const storages = await services.db.read
      .selectFrom('primary_storages')
      .select('id')
      .where('state', '<>', 'disabled')
      .execute();
    await Promise.all([
      ...storages.map(storage => measurePool(services, storage.id, signal)),
      measureStores(services, signal),
      sweepGarbage(services, signal),
    ]);
  },
  // apart from measuring, which waits long for a pool that hangs
  reconnect: (services, _engine, signal) => reconnectPools(services, signal),
  async trash(services, engine, signal) {
    const before = services.db.elapsed() - services.config.trashHours * 3600_000;
    const old = await services.db.read
      .selectFrom('volumes')
      .select('id')
      .where('status', '=', 'deleted')
      .where(e => e.fn.coalesce('deleted_elapsed', e.val(0)), '<=', before)
      .limit(1)
      .executeTakeFirst();
    if (old) await engine.start(emptyTrash, { before }, { shown: { before } });
    await sweepGarbage(services, signal);
  },
  cache: (services, engine) => evictUnderPressure(services, engine),
  scrub: scrubCaches,
  uploads: (services, _engine, signal) => sweepUploads(services, signal),
  async backup({ db, log, metrics }) {
    const file = await backUp(db);
    metrics.backupTime.setToCurrentTime();
    log.info({ file }, 'the database was backed up');
  },
  async prune(services) {
    const before = services.db.elapsed() - services.config.operationDays * 86_400_000;
    const old = (column: 'finished_elapsed' | 'elapsed') => sql<number>`coalesce(${sql.ref(column)}, 0)`;
    await services.db.write(async trx => {
      await trx
        .deleteFrom('steps')
        .where('operation_id', 'in', e =>
          e
            .selectFrom('operations')
            .select('id')
            .where('finished_at', 'is not', null)
            .where(old('finished_elapsed'), '<', before),
        )
        .execute();
      await trx
        .deleteFrom('operations')
        .where('finished_at', 'is not', null)
        .where(old('finished_elapsed'), '<', before)
        .execute();
      await trx.deleteFrom('events').where(old('elapsed'), '<', before).execute();
      // an image whose last copy has gone is remembered no longer
      await trx
        .deleteFrom('images')
        .where('status', '=', 'deleted')
        .where('id', 'not in', e =>
          e.selectFrom('volumes').select('image_id').where('image_id', 'is not', null).$castTo<{ image_id: string }>(),
        )
        .where('id', 'not in', e => e.selectFrom('cache_entries').select('image_id'))
        .execute();
    });
  },
};

/** Starts the regular work by the configured cron expressions; a job that still runs is not started again. Returns how to stop it. */
export function startSchedules(services: Services, engine: Engine): () => Promise<void> {
  const stopping = new AbortController();
  const running = new Map<string, Promise<void>>();
  const names = Object.keys(JOBS) as (keyof typeof JOBS)[];
  const stop = everySecond(services.config.schedules, names, name => {
    if (running.has(name) || services.recovery.current()) return;
    const job = JOBS[name](services, engine, stopping.signal)
      .catch(error => {
        if (!stopping.signal.aborted) services.log.error({ err: error, job: name }, 'scheduled work failed');
      })
      .finally(() => running.delete(name));
    running.set(name, job);
  });
  return async () => {
    stopping.abort(new Error('the controller stops'));
    stop();
    await Promise.allSettled(running.values());
  };
}
