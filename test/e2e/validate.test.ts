import assert from 'node:assert/strict';
import { readdirSync, renameSync } from 'node:fs';
import { done, WAIT } from '../servers/cistern.ts';
import { type House, NO_SCHEDULES, openHouse } from './house.ts';

describe('validating a backup storage', () => {
  let house: House;
  let depot: string;
  before(async function () {
    this.timeout(60_000);
    house = await openHouse({ hosts: ['host-1'], controller: { schedules: NO_SCHEDULES } });
    depot = await house.addStore('depot');
  });
  after(() => house?.[Symbol.asyncDispose]());

  const validate = async (): Promise<{ passed: number; failed: number; cases: { ok: boolean; detail: string }[] }> => {
    const { output } = await done(house.api.validateBackupStorage({ params: { ref: 'depot' } }, WAIT));
    return output as Awaited<ReturnType<typeof validate>>;
  };

  it('runs the suite on a host, tells each case, and leaves nothing', async () => {
    const { passed, failed, cases } = await validate();
    assert.deepEqual([passed, failed], [cases.length, 0]);
    assert.ok(cases.length > 10);
    assert.deepEqual(readdirSync(depot), []);
  });

  it('tells what is wrong with one that is not there', async () => {
    renameSync(depot, `${depot}-away`);
    await assert.rejects(validate(), /is failed: STORE_CONFIG/);
    renameSync(`${depot}-away`, depot);
  });
});
