import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { newId } from '../../shared/id.ts';
import { done } from '../servers/cistern.ts';
import { type House, makeDisk, MiB, NO_SCHEDULES, openHouse, until } from './house.ts';

const HOUR_MS = 3600_000;
/** An id of another time. */
const idOf = (time: number): string => {
  const hex = time.toString(16).padStart(12, '0');
  return `${hex.slice(0, 8)}-${hex.slice(8)}${newId().slice(13)}`;
};

describe('unfinished uploads on a backup storage', () => {
  let house: House;
  let images: string;

  before(async function () {
    this.timeout(60_000);
    house = await openHouse({ hosts: ['host-1'], controller: { schedules: { ...NO_SCHEDULES, uploads: '* * * * * *' } } });
    images = join(await house.addStore('depot'), 'images');
    await makeDisk(join(house.files, 'disk.raw'), 4 * MiB, 'swept');
    await done(house.importFile('disk.raw', { name: 'base' }));
  });
  after(() => house?.[Symbol.asyncDispose]());

  /** What an upload leaves that was cut short. */
  const leave = (id: string, files: Record<string, string> = { '.partial-0123456789abcdef': 'x' }): string => {
    mkdirSync(join(images, id));
    for (const [name, text] of Object.entries(files)) writeFileSync(join(images, id, name), text);
    return id;
  };
  const swept = async () => {
    const { items } = await house.api.listEvents({ query: { limit: 1000 } });
    return items.filter(event => event.type === 'backup-storage.swept').map(event => event.message);
  };

  it('go once they are a day old and nobody knows of them; all else stays', async () => {
    const { id: known } = await house.api.getImage({ params: { ref: 'base' } });
    const manifest = join(images, known, 'manifest.json');
    renameSync(manifest, `${manifest}.away`); // as while it is replaced
    const young = leave(idOf(Date.now() - 23 * HOUR_MS));
    const damaged = leave(idOf(Date.now() - 25 * HOUR_MS), { 'image.raw': 'x', 'manifest.json': '{' });
    const old = leave(idOf(Date.now() - 25 * HOUR_MS));
    await until('the old one is gone', () => !existsSync(join(images, old)));
    const later = leave(idOf(Date.now() - 48 * HOUR_MS));
    await until('one that came later is gone as well', () => !existsSync(join(images, later)));
    assert.deepEqual(readdirSync(images).sort(), [known, young, damaged].sort());
    await until('both are told of', async () => (await swept()).length === 2);
    for (const [i, id] of [old, later].entries()) assert.ok((await swept())[i]!.includes(id));
    renameSync(`${manifest}.away`, manifest);
  }).timeout(60_000);
});
