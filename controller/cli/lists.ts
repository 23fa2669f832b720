import type { Command } from 'commander';
import type { Call } from './command.ts';
import type { ControllerClient } from './connection.ts';
import { parseCount } from './units.ts';

interface Page<T> {
  items: T[];
  next: string | null;
}

const PAGE = 1000;
const DEFAULT_LIMIT = 10_000;

/** Adds `--limit` to a list command. */
export const withLimit = (command: Command, limit = DEFAULT_LIMIT): Command =>
  command.option('--limit <count>', 'how many at most', parseCount(1, 1_000_000), limit);

/** The first `limit` things of a list, page after page; `more` says whether there are others. */
export async function readAll<T>(
  fetch: (page: { limit: number; cursor?: string }) => Promise<Page<T>>,
  limit = DEFAULT_LIMIT,
): Promise<{ items: T[]; more: boolean }> {
  const items: T[] = [];
  let cursor: string | undefined;
  while (items.length < limit) {
    const page = await fetch({ limit: Math.min(PAGE, limit - items.length), ...(cursor !== undefined && { cursor }) });
    items.push(...page.items);
    if (page.next === null || page.items.length === 0) return { items, more: false };
    cursor = page.next;
  }
  return { items, more: true };
}

/** The same for a list command: `--limit` bounds it, and a note says when it did. */
export async function listFor<T>(
  call: Call,
  fetch: (page: { limit: number; cursor?: string }) => Promise<Page<T>>,
): Promise<T[]> {
  const limit = call.options.limit as number;
  const { items, more } = await readAll(fetch, limit);
  if (more) call.out.note(`There are more than ${limit}: raise --limit to see them.`);
  return items;
}

/** The nouns that have a name and are referred to by id. */
export const NAMED = {
  host: (client, query) => client.listHosts({ query }),
  cluster: (client, query) => client.listClusters({ query }),
  'primary-storage': (client, query) => client.listPrimaryStorages({ query }),
  'backup-storage': (client, query) => client.listBackupStorages({ query }),
  image: (client, query) => client.listImages({ query }),
  volume: (client, query) => client.listVolumes({ query }),
  token: (client, query) => client.listTokens({ query }),
} satisfies Record<
  string,
  (client: ControllerClient, query: { limit: number; cursor?: string }) => Promise<Page<{ id: string; name: string }>>
>;

export type NamedKind = keyof typeof NAMED;

export type NameOf = (id: string | null | undefined) => string;

/** Names for the ids of `kinds`, to print in tables; an id without one (deleted) stays the id. Asks nothing where JSON is printed. */
export async function namesOf(call: Call, ...kinds: NamedKind[]): Promise<NameOf> {
  const names = new Map<string, string>();
  if (!call.out.json) {
    const lists = await Promise.all(
      kinds.map(kind => readAll<{ id: string; name: string }>(page => NAMED[kind](call.client, page))),
    );
    for (const { id, name } of lists.flatMap(list => list.items)) names.set(id, name);
  }
  return id => (id ? (names.get(id) ?? id) : '-');
}
