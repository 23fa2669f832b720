import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { readOrCreateToken } from '../shared/http/auth.ts';
import { writeDurable } from '../shared/durable.ts';
import { newIdsAfter } from '../shared/id.ts';
import type { Logger } from '../shared/log.ts';
import { type Running, runService, serve } from '../shared/service.ts';
import { refusePlain } from '../shared/tls/client.ts';
import { createApp } from './api/app.ts';
import { ControllerConfig } from './config.ts';
import { createProof, secureUrlOf } from './proof.ts';
import { openAuthority } from './authority.ts';
import { openDatabase } from './db/database.ts';
import { createEvents } from './events.ts';
import { createFleet } from './fleet/fleet.ts';
import { connectHost, meetAll, noteStray } from './fleet/connect.ts';
import { keepHeartbeats } from './fleet/heartbeat.ts';
import { createMetrics } from './metrics.ts';
import { createEngine } from './operations/engine.ts';
import { startSchedules } from './policy/schedules.ts';
import { createRecovery } from './recovery.ts';
import { openSecrets, proveKey } from './secrets.ts';
import type { Services } from './services.ts';
import { openTokens } from './tokens.ts';
import { WORKFLOWS } from './workflows/registry.ts';

export interface RunningController extends Running {
  token: string;
}

const VERSION = (JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }).version;

/**
 * Starts a controller in this process. Stopping it ends no operation: the next controller on the same state folder goes on with them.
 */
export async function startController(config: ControllerConfig, log: Logger): Promise<RunningController> {
  await using undo = new AsyncDisposableStack();
  mkdirSync(config.stateDir, { recursive: true, mode: 0o700 });
  const tokenFile = join(config.stateDir, 'token');
  const { token, created } = readOrCreateToken(tokenFile);
  if (created) log.info({ tokenFile }, 'a token for the API was made; whoever may read this file may use the API');
  const dbFile = join(config.stateDir, 'cistern.db');
  const secrets = openSecrets(config.stateDir, { mayMake: !existsSync(dbFile) });
  const metrics = createMetrics(VERSION);
  const events = createEvents();
  const db = undo.adopt(
    await openDatabase(dbFile, {
      onCommit(seconds) {
        metrics.commitSeconds.observe(seconds);
        events.committed();
      },
      onDamage(error) {
        metrics.databaseDamaged.set(1);
        log.fatal({ err: error }, 'the database is damaged: nothing is written to it any more, and no new work is taken');
      },
    }),
    opened => opened.close(),
  );
  const lastId = await db.read.selectFrom('operations').select('id').orderBy('id', 'desc').limit(1).executeTakeFirst();
  if (lastId) newIdsAfter(lastId.id);
  await proveKey(db, secrets);
  const tokens = undo.adopt(await openTokens(db, token), opened => opened.close());
  let url = '';
  const meet = (hostId: string): Promise<unknown> => connectHost(services, hostId);
  const onStray = (hostId: string, epoch: number): void =>
    void noteStray(services, hostId, epoch).catch(error =>
      log.error({ err: error, hostId }, 'a copied agent could not be noted'),
    );
  const authority = await openAuthority(db, secrets, config.certificateDays);
  writeDurable(join(config.stateDir, 'ca.pem'), authority.ca);
  const proof = await createProof(authority, config);
  const { trusting } = proof;
  const fleet = createFleet({ db, secrets, retrySeconds: config.taskRetrySeconds, trusting, meet, onStray });
  const recovery = await createRecovery(db, log, () => engine.freeze());
  const publicUrl = (): string => config.publicUrl ?? url;
  const secureUrl = (): string => secureUrlOf(publicUrl());
  refusePlain(config.publicUrl ?? '');
  const services: Services = {
    config,
    log,
    db,
    secrets,
    tokens,
    events,
    metrics,
    fleet,
    recovery,
    authority,
    cancel: (id, caller) => engine.cancel(id, caller),
    publicUrl,
    secureUrl,
  };
  const engine = undo.adopt(createEngine(services, WORKFLOWS), e => e.stop());
  const met = Promise.withResolvers<void>();
  const server = undo.use(await serve(createApp({ services, engine, version: VERSION, met: met.promise }), config, proof.tls()));
  undo.defer(proof.keep(server, error => log.error({ err: error }, 'the certificate of the controller could not be renewed')));
  url = server.url;
  await meetAll(services);
  met.resolve();
  const stopping = new AbortController();
  const heartbeats = keepHeartbeats(services, stopping.signal);
  undo.defer(async () => {
    stopping.abort(new Error('the controller stops'));
    await heartbeats;
  });
  undo.defer(startSchedules(services, engine));
  if (!recovery.current()) await engine.resume();
  log.info({ url, stateDir: config.stateDir, pid: process.pid }, 'controller listens');

  const started = undo.move();
  let stopped: Promise<void> | undefined;
  return { url, token, stop: () => (stopped ??= started.disposeAsync()) };
}

if (import.meta.main) {
  await runService({
    name: 'cistern-controller',
    config: ControllerConfig,
    prefix: 'CISTERN_CONTROLLER',
    defaultFile: '/etc/cistern/controller.json',
    start: startController,
  });
}
