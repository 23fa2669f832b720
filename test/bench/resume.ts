/**
 * Transfers whose worker is killed (kill -9) when four fifths have moved, in a whole installation with an OpenSSH server: how much the
 * repetition moves, which the controller starts by itself. The image is 2 GiB of random bytes.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { FINAL_STATES, type Operation } from '../../shared/model.ts';
import { type Cistern, startCistern } from '../servers/cistern.ts';
import { descendants } from '../servers/processes.ts';
import { ended } from './ended.ts';
import { ratioOf, type Row } from './row.ts';
import { dense, SIZE } from './sftp/image.ts';
import { startPlace } from './sftp/place.ts';

const KILL_AT = 0.8;
const LIMIT = 0.25;
const LOOK_MS = 20;
/** One operation may take ten minutes on a slow disk. */
const DEADLINE_MS = 600_000;

export async function bench(): Promise<Row[]> {
  await using place = await startPlace();
  await using cistern = await startCistern(`${place.folder}/cistern`);
  const { api } = cistern;
  const { host, port, user, hostKey, privateKey, path } = place.sshd;
  await dense(path);
  await ended(api, api.addPrimaryStorage({ body: { name: 'pool', type: 'local', config: { path: cistern.dir('pool') } } }));
  await ended(
    api,
    api.addBackupStorage({ body: { name: 'store', type: 'sftp', config: { host, port, user, hostKey, privateKey, path } } }),
  );
  const source = { type: 'object', backupStorage: 'store', path: 'dense.raw' } as const;
  const upload = await killed(cistern, 'publish', () =>
    api.importImage({ body: { name: 'image', format: 'raw', sourceFormat: 'raw', source } }),
  );
  const download = await killed(cistern, 'download', () => api.addToCache({ body: { image: 'image', primaryStorage: 'pool' } }));
  return [row('upload to sftp', upload), row('download into a cache', download)];
}

/** Runs an operation, kills every worker once `stage` has come four fifths of the way, and returns the bytes that it moved afterwards. */
async function killed(cistern: Cistern, stage: string, start: () => Promise<Operation>): Promise<number> {
  const { id } = await start();
  const deadline = performance.now() + DEADLINE_MS;
  const look = (): Promise<Operation> => cistern.api.getOperation({ params: { ref: id } });
  for (let hit = false; !hit; await delay(LOOK_MS)) {
    const { progress, state, error } = await look();
    if (FINAL_STATES.includes(state) || performance.now() > deadline)
      throw new Error(`the operation is ${state}, and was not seen at ${KILL_AT} of ${stage}: ${error?.detail ?? ''}`);
    hit = progress?.stage === stage && progress.total !== null && progress.done >= KILL_AT * progress.total;
  }
  for (const pid of await descendants(cistern.agents[0]!.pid)) process.kill(pid, 'SIGKILL');
  const { steps } = await ended(cistern.api, look());
  const moved = steps.flatMap(step => movedIn(step.result));
  if (moved.length === 0) throw new Error(`no step of the operation tells of a transfer: ${JSON.stringify(steps)}`);
  return moved.at(-1)!;
}

/** The bytes that the transfers of a step moved. */
function movedIn(result: unknown): number[] {
  if (typeof result !== 'object' || result === null) return [];
  const own = 'moved' in result && 'resumed' in result && typeof result.moved === 'number' ? [result.moved] : [];
  return [...own, ...Object.values(result).flatMap(movedIn)];
}

const row = (what: string, moved: number): Row => ({
  case: `${what}, killed at ${KILL_AT * 100} %`,
  unit: 'share moved again',
  ours: moved / SIZE,
  tool: 'limit',
  peer: LIMIT,
  ratio: ratioOf(moved / SIZE, LIMIT, 'less'),
  reach: `<= ${LIMIT}`,
});
