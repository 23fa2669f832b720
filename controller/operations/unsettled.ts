import { newId } from '../../shared/id.ts';
import { CisternError, type ErrorCode } from '../../shared/errors.ts';
import type { Reader, Trx } from '../db/database.ts';
import { poolRef } from '../fleet/refs.ts';
import type { Services } from '../services.ts';

/** Volumes of which an operation could not see to the end, since their host or pool went away under its undo. Nothing else works on them meanwhile. */
export type Unsettled =
  /** They stay `deleting` until they are brought back from the trash, where some of them may be; `missing`: not found before the delete. */
  | { kind: 'restore'; storageId: string; volumeIds: string[]; missing?: string[] }
  /** It may have grown, or not. */
  | { kind: 'size'; storageId: string; volumeId: string; layerId: string };

/**
 * Whether what could not be asked is to be asked later: the host is away, or has no room to note one more task, or somebody must put its pool
 * right first. What is to pass by itself is tried again by the undo, and what is wrong with the volume stays wrong.
 */
export const canWait = (error: unknown): boolean =>
  error instanceof CisternError &&
  (AWAY.includes(error.code) || (!error.retryable && !/^(VOLUME|IMAGE|CACHE|TOOL)_/.test(error.code)));

const AWAY: readonly string[] = [
  'HOST_UNREACHABLE',
  'TIMEOUT',
  'CONTROLLER_UNKNOWN',
  'BUSY',
  'NO_CAPACITY',
] satisfies ErrorCode[];

/** What a delete that came to nothing makes of its volumes. */
export async function backToWhatTheyWere(trx: Trx, volumeIds: string[], missing: string[] = []): Promise<void> {
  const set = (status: 'ready' | 'missing', ids: string[]) =>
    trx.updateTable('volumes').set({ status }).where('id', 'in', ids).where('status', '=', 'deleting').execute();
  const lost = new Set(missing);
  await set('ready', volumeIds.filter(id => !lost.has(id))); // prettier-ignore
  if (missing.length > 0) await set('missing', volumeIds.filter(id => lost.has(id))); // prettier-ignore
}

/** Volumes that are brought back once their host is. */
export async function restoredLater(db: Reader): Promise<Set<string>> {
  const rows = await db.selectFrom('garbage').select('waste_json').where('waste_json', 'like', '{"kind":"restore"%').execute();
  return new Set(rows.flatMap(row => (JSON.parse(row.waste_json) as { volumeIds: string[] }).volumeIds));
}

/** Asks the host, which is back, and lets the rows follow. */
export async function settle(services: Services, hostId: string, left: Unsettled, signal: AbortSignal): Promise<void> {
  const { db, fleet } = services;
  const pool = await poolRef(services, left.storageId);
  const options = { signal, patienceSeconds: 0 };
  if (left.kind === 'restore') {
    const rows = db.read.selectFrom('volumes').select('id').where('id', 'in', left.volumeIds).where('status', '=', 'deleting');
    const volumeIds = (await rows.execute()).map(row => row.id);
    if (volumeIds.length === 0) return;
    await fleet.run(hostId, newId(), { kind: 'volume.restore', input: { pool, volumeIds } }, options);
    await db.write(trx => backToWhatTheyWere(trx, volumeIds, left.missing));
    return;
  }
  const { volumeId, layerId } = left;
  const there = db.read.selectFrom('volumes').select('id').where('id', '=', volumeId).where('status', '=', 'ready');
  if (!(await there.executeTakeFirst())) return;
  const { size } = await fleet.run(hostId, newId(), { kind: 'volume.inspect', input: { pool, volumeId, layerId } }, options);
  await db.write(async trx => {
    // an operation that works on it by now says itself what size it has
    const locked = await trx.selectFrom('locks').select('name').where('name', '=', `volume/${volumeId}`).executeTakeFirst();
    if (locked) throw new CisternError('BUSY', `an operation works on volume ${volumeId}`);
    await trx.updateTable('volumes').set({ size }).where('id', '=', volumeId).where('status', '=', 'ready').execute();
  });
}
