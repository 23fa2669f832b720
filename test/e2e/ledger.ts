/** Compares what the controller has in its database with what lies on pools, stores and hosts. */
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

export interface Places {
  /** State folder of the controller, which must not run. */
  controller: string;
  /** State folders of agents. */
  agents: string[];
  /** Root of each pool by `primaryStorageId/hostId`. */
  pools: Record<string, string>;
  /** Root of each backup storage by its id. */
  stores: Record<string, string>;
}

type Rows = Record<string, string | number>[];

/** Every difference as a sentence; none is what is wanted once all operations have ended. */
export function differences(places: Places): string[] {
  const copy = mkdtempSync(join(tmpdir(), 'cistern-ledger-'));
  try {
    for (const name of list(places.controller))
      if (name.startsWith('cistern.db')) cpSync(join(places.controller, name), join(copy, name));
    const db = new DatabaseSync(join(copy, 'cistern.db'));
    const read = (sql: string, ...values: string[]) => db.prepare(sql).all(...values) as Rows;
    try {
      return [
        ...unfinished(read),
        ...Object.entries(places.pools).flatMap(([key, root]) => inPool(read, key, root)),
        ...Object.entries(places.stores).flatMap(([id, root]) => inStore(read, id, root)),
        ...places.agents.flatMap(state =>
          list(join(state, 'spool'))
            .filter(isId)
            .map(id => `${state}: spool/${id} is left`),
        ),
      ];
    } finally {
      db.close();
    }
  } finally {
    rmSync(copy, { recursive: true });
  }
}

type Read = (sql: string, ...values: string[]) => Rows;

const list = (folder: string): string[] => (existsSync(folder) ? readdirSync(folder).sort() : []);
const isId = (name: string): boolean => /^[0-9a-f-]{36}$/.test(name);

function unfinished(read: Read): string[] {
  const queries = {
    'lock is held': 'select * from locks',
    'reservation is held': 'select * from reservations',
    'garbage is left': 'select * from garbage',
    'operation has not ended': 'select id, kind, state from operations where finished_at is null',
    'volume is under way': `select id, name, status from volumes where status not in ('ready', 'deleted')`,
    'image is under way': `select id, name, status from images where status not in ('ready', 'deleted')`,
    'replica is under way': `select * from replicas where status <> 'ready'`,
    'cache entry is under way': `select * from cache_entries where status <> 'ready'`,
  };
  return Object.entries(queries).flatMap(([what, sql]) => read(sql).map(row => `${what}: ${JSON.stringify(row)}`));
}

/** Names that only one side has. */
function compare(where: string, rows: (string | number)[], files: string[]): string[] {
  return [
    ...rows.filter(id => !files.includes(String(id))).map(id => `${where}${id} has a row, but is not there`),
    ...files.filter(id => !rows.includes(id)).map(id => `${where}${id} is there without a row`),
  ];
}

function inPool(read: Read, key: string, root: string): string[] {
  const pool = key.split('/') as [string, string];
  const here = 'where primary_storage_id = ? and host_id = ?';
  const volumes = read(`select id, layer_id, size, status from volumes ${here}`, ...pool);
  const known = new Set(read('select id from images').map(row => `fill-${row.id}`));
  const ready = volumes.filter(row => row.status === 'ready');
  const trash = volumes.filter(row => row.status === 'deleted').map(row => row.id!);
  const cache = read(`select image_id from cache_entries ${here}`, ...pool).map(row => row.image_id!);
  return [
    ...compare(`${root}: volumes/`, ready.map(row => row.id!), list(join(root, 'volumes'))), // prettier-ignore
    ...compare(`${root}: trash/`, trash, list(join(root, 'trash'))),
    ...compare(`${root}: cache/`, cache, list(join(root, 'cache'))),
    // what a fill that was cut short has brought is kept for the next one
    ...compare(
      `${root}: tmp/`,
      [],
      list(join(root, 'tmp')).filter(name => !known.has(name)),
    ),
    ...ready.flatMap(row => ofSize(join(root, 'volumes', String(row.id)), row)),
  ];
}

/** The size that a guest sees stands in the qcow2 header (bytes 24 to 31). */
function ofSize(folder: string, row: Rows[number]): string[] {
  const file = join(folder, `${row.layer_id}.qcow2`);
  if (!existsSync(file)) return [];
  const size = Number(readFileSync(file).readBigUInt64BE(24));
  return size === row.size ? [] : [`${file} has ${size} bytes, its row says ${row.size}`];
}

function inStore(read: Read, id: string, root: string): string[] {
  const images = read('select image_id from replicas where backup_storage_id = ?', id).map(row => row.image_id!);
  const found = list(join(root, 'images'));
  const whole = (image: string) => /^image\.(qcow2|raw),manifest\.json$/.test(list(join(root, 'images', image)).join());
  return [
    ...compare(`${root}: images/`, images, found),
    // the probe of a check that was killed goes with a later check
    ...compare(`${root}: `, [], list(root).filter(name => name !== 'images' && !/^(cistern-)?probe-/.test(name))), // prettier-ignore
    ...found.filter(image => !whole(image)).map(image => `${root}: images/${image} holds ${list(join(root, 'images', image))}`),
  ];
}
