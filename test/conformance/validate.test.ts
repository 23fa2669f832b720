/** The suite that the agent runs against an operator's own store: it passes a good one and names what a bad one does wrong. */
import assert from 'node:assert/strict';
import type { BackupStore } from '../../agent/backup/driver.ts';
import { conformanceCases, runConformance } from '../../agent/backup/conformance/run.ts';
import { openBackupStore } from '../../agent/backup/registry.ts';
import { newId } from '../../shared/id.ts';
import { tempFolder } from './backup-image.ts';
import { backupTargets, type BackupTarget } from './backup-targets.ts';

const never = new AbortController().signal;

describe('the conformance suite of the agent', () => {
  let target: BackupTarget;
  let store: BackupStore;
  before(async () => {
    target = await backupTargets['dir']!.start();
    store = await openBackupStore({ id: newId(), type: 'dir', config: target.config }, never);
  });
  after(async () => {
    await store.close();
    await target[Symbol.asyncDispose]();
  });

  const failing = async (changed: Partial<BackupStore>): Promise<string[]> => {
    await using folder = await tempFolder();
    const outcomes = await runConformance({ ...store, ...changed }, folder.path, never);
    return outcomes.filter(one => !one.ok).map(one => `${one.name}: ${one.detail}`);
  };

  it('passes a store that does all it has to, and leaves nothing there', async () => {
    await using folder = await tempFolder();
    const seen: number[] = [];
    const outcomes = await runConformance(store, folder.path, never, done => void seen.push(done));
    assert.deepEqual(
      outcomes.filter(one => !one.ok),
      [],
    );
    assert.equal(seen.at(-1), conformanceCases.length);
    assert.deepEqual(await target.files(), []);
  });

  it('names what a store does that forgets to overwrite', async () => {
    const written = new Set<string>();
    const write: BackupStore['write'] = (path, body) => {
      if (written.has(path)) return Promise.resolve();
      written.add(path);
      return store.write(path, body);
    };
    assert.deepEqual(
      (await failing({ write })).map(line => line.split(':')[0]),
      ['overwrites a small object whole'],
    );
  });

  it('tells what a store leaves behind', async () => {
    const failed = await failing({ remove: () => Promise.resolve() });
    assert.ok(failed.some(line => /something is left in cistern-validate-/.test(line)));
    const left = new Set((await target.files()).map(path => path.split('/')[0]!));
    for (const name of left) await store.remove(name);
  });

  it('tries nothing more where the store cannot be reached', async () => {
    await using folder = await tempFolder();
    const check = (): Promise<void> => Promise.reject(new Error('out of reach'));
    const outcomes = await runConformance({ ...store, check }, folder.path, never);
    assert.deepEqual(
      outcomes.map(({ ok, detail }) => [ok, detail]),
      [[false, 'out of reach']],
    );
  });
});
