import type { CommandMessage } from '../../shared/commands/index.ts';
import type { StoreRef } from '../../shared/commands/refs.ts';
import type { Paces } from '../../shared/task.ts';
import type { Database } from '../db/database.ts';

/**
 * What goes to and from backup storages at this moment, over all hosts. Each may have a budget of bytes a second, of which every transfer
 * gets an equal share, and a number of transfers at once, past which they wait in line.
 */
export interface Traffic {
  /** Waits for a place on the backup storages that a command moves images to and from; throws the signal's reason. */
  enter(message: CommandMessage, guest: Guest): Promise<Place>;
  /** The limits of a backup storage were changed. */
  refresh(storeId: string): Promise<void>;
}

export interface Guest {
  signal: AbortSignal;
  /** It waits for a place on the backup storage of this name. */
  waiting(store: string): void;
  /** `paces` of its place are others now. */
  changed(): void;
}

export interface Place extends Disposable {
  paces(): Paces;
}

interface Limits {
  name: string;
  bytesPerSecond: number | null;
  transfers: number | null;
}

interface Transfer {
  /** Backup storages on which it has a place. */
  at: string[];
  /** Others that it goes on to where these fail. */
  spare: string[];
  guest: Guest;
}

export function createTraffic(db: Database): Traffic {
  const limits = new Map<string, Limits>();
  const running = new Set<Transfer>();
  const line = new Map<Transfer, () => void>();

  const load = async (ids: string[]): Promise<void> => {
    const rows = await db.read
      .selectFrom('backup_storages')
      .select(['id', 'name', 'bytes_per_second', 'transfers'])
      .where('id', 'in', ids)
      .execute();
    for (const { id, name, bytes_per_second: bytesPerSecond, transfers } of rows)
      limits.set(id, { name, bytesPerSecond, transfers });
  };
  const others = (storeId: string, me: Transfer): number =>
    [...running].filter(transfer => transfer !== me && transfer.at.includes(storeId)).length;
  const share = (storeId: string, me: Transfer): number | null => {
    const budget = limits.get(storeId)?.bytesPerSecond ?? null;
    return budget === null ? null : Math.max(1, Math.floor(budget / (others(storeId, me) + 1)));
  };
  const fullFor = (me: Transfer): string | undefined =>
    me.at.find(id => others(id, me) >= (limits.get(id)?.transfers ?? Infinity));
  const tell = (storeIds: string[]): void => {
    for (const { at, spare, guest } of running) if ([...at, ...spare].some(id => storeIds.includes(id))) guest.changed();
  };
  const pump = (): void => {
    for (const [transfer, go] of line) {
      if (fullFor(transfer) !== undefined) continue;
      line.delete(transfer);
      running.add(transfer);
      go();
    }
  };

  /** Stands in line until there is a place. */
  const wait = (me: Transfer): Promise<void> => {
    const { signal, waiting } = me.guest;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const leave = (): void => {
      line.delete(me);
      reject(signal.reason as Error);
    };
    line.set(me, resolve);
    signal.addEventListener('abort', leave, { once: true });
    const full = fullFor(me);
    waiting((full === undefined ? undefined : limits.get(full)?.name) ?? 'a backup storage');
    return promise.finally(() => signal.removeEventListener('abort', leave));
  };

  return {
    async enter(message, guest) {
      const me: Transfer = { ...storesOf(message), guest };
      const all = [...me.at, ...me.spare];
      if (all.length > 0) await load(all);
      guest.signal.throwIfAborted();
      // the bytes of an upload come at once: it counts, and waits for nobody
      if (fullFor(me) === undefined || isUpload(message)) running.add(me);
      else await wait(me);
      tell(me.at);
      return {
        paces: () => Object.fromEntries(all.map(id => [id, share(id, me)])),
        [Symbol.dispose]() {
          running.delete(me);
          pump();
          tell(me.at);
        },
      };
    },
    async refresh(storeId) {
      await load([storeId]);
      pump();
      tell([storeId]);
    },
  };
}

const isUpload = (message: CommandMessage): boolean => message.kind === 'image.import' && message.input.source.type === 'upload';

/** The backup storages that a command moves images to and from. Of several replicas it is mostly the first that gives the bytes. */
function storesOf({ kind, input }: CommandMessage): Pick<Transfer, 'at' | 'spare'> {
  const of = (at: StoreRef[], spare: StoreRef[] = []): Pick<Transfer, 'at' | 'spare'> => ({
    at: [...new Set(at.map(store => store.id))],
    spare: spare.map(store => store.id),
  });
  switch (kind) {
    case 'cache.fill':
      return of(input.stores.slice(0, 1), input.stores.slice(1));
    case 'image.verify':
      return of([input.store]);
    case 'image.copy':
      return of([...input.from.slice(0, 1), input.to], input.from.slice(1));
    case 'image.import':
      return of([...input.stores, ...(input.source.type === 'object' ? [input.source.store] : [])]);
    case 'volume.upload':
      return of(input.stores);
    default:
      return of([]);
  }
}
