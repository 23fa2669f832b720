import assert from 'node:assert/strict';
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { AgentConfig } from '../../agent/config.ts';
import { startAgent } from '../../agent/main.ts';
import { createLog } from '../../shared/log.ts';
import { done, WAIT } from '../servers/cistern.ts';
import { type House, NO_SCHEDULES, openHouse } from './house.ts';

const SHELF = join(import.meta.dirname, '../plugin/shelf.ts');

describe('a driver of somebody else', () => {
  let house: House;
  let folder: string;
  before(async function () {
    this.timeout(60_000);
    house = await openHouse({ hosts: ['host-1'], agent: { drivers: [SHELF] }, controller: { schedules: NO_SCHEDULES } });
    folder = house.cistern.dir('shelf');
    await done(house.api.addBackupStorage({ body: { name: 'shelf', type: 'shelf', config: { path: folder } } }, WAIT));
  });
  after(() => house?.[Symbol.asyncDispose]());

  it('is among what a host can do', async () => {
    const { facts } = await house.api.getHost({ params: { ref: 'host-1' } });
    assert.equal(facts?.backup.find(driver => driver.type === 'shelf')?.title, 'A shelf of the tests');
  });

  it('passes the suite that every driver passes', async () => {
    const { output } = await done(house.api.validateBackupStorage({ params: { ref: 'shelf' } }, WAIT));
    const { cases, failed } = output as { failed: number; cases: { name: string; ok: boolean; detail: string }[] };
    assert.deepEqual(cases.filter(one => !one.ok), []); // prettier-ignore
    assert.equal(failed, 0);
    assert.deepEqual(readdirSync(folder), []);
  });

  for (const [what, text, words] of [
    ['is not there', null, /Cannot find module/],
    ['makes nothing', 'export const driver = 1;', /default export is not a function/],
    ['makes something else', 'export default () => ({ type: "Shelf 9" });', /type|title/],
    ['takes the name of another', `export { default } from '${SHELF}?again';`, /a driver shelf already/],
  ] as const)
    it(`keeps an agent from starting, in clear words, where it ${what}`, async () => {
      const file = join(house.cistern.folder, `${what.replaceAll(' ', '-')}.ts`);
      if (text !== null) writeFileSync(file, text);
      const names = what.startsWith('takes') ? [SHELF, file] : [file];
      const config = AgentConfig.parse({ stateDir: house.cistern.dir('never'), port: 0, drivers: names, logLevel: 'silent' });
      await assert.rejects(startAgent(config, createLog('test', 'silent')), (error: { code?: string; message: string }) => {
        assert.equal(error.code, 'DRIVER_INVALID');
        assert.match(error.message, words);
        assert.ok(error.message.includes(file));
        return true;
      });
    });
});
