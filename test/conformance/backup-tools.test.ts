import assert from 'node:assert/strict';
import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { BackupStore } from '../../agent/backup/driver.ts';
import { fetchImage, publishImage, removeImage } from '../../agent/backup/layout.ts';
import { pacedStore } from '../../agent/backup/paced.ts';
import { openBackupStore } from '../../agent/backup/registry.ts';
import { fileSource } from '../../agent/transfer/file-end.ts';
import { makePace, setPace } from '../../agent/transfer/pace.ts';
import { CisternError } from '../../shared/errors.ts';
import { newId } from '../../shared/id.ts';
import { startSpoilingProxy, type SpoilingProxy } from '../servers/spoiling-proxy.ts';
import { makeImage, sinkInto, tempFolder } from './backup-image.ts';
import { backupTargets, type BackupTarget } from './backup-targets.ts';

const never = new AbortController().signal;
const MIB = 2 ** 20;
/** More than one part of s3cmd. */
const SIZE = 40 * MIB;

for (const [name, { type, tool, start }] of Object.entries(backupTargets).filter(([, kind]) => kind.tool)) {
  describe(`backup storage: ${name}, what befalls the program`, () => {
    const calm = { streams: 2, stallSeconds: 30, signal: never };
    let target: BackupTarget;
    let proxy: SpoilingProxy;
    let store: BackupStore;
    let folder: Awaited<ReturnType<typeof tempFolder>>;
    let id: string;
    /** The server's address as the configuration names it, led through the proxy. */
    const through = (): Record<string, unknown> => {
      const { port } = proxy;
      return target.config.endpoint === undefined ? { port } : { endpoint: `http://127.0.0.1:${port}` };
    };
    const publish = async (size = SIZE, options: Partial<typeof calm & { progress: () => void }> = {}) => {
      const file = join(folder.path, 'image');
      await makeImage(file, size);
      return publishImage(store, { id, format: 'raw', virtualSize: size }, await fileSource(file), { ...calm, ...options });
    };
    const fetch = () => fetchImage(store, id, m => sinkInto(folder.path, m.size), calm);
    const same = async (): Promise<void> =>
      assert.deepEqual(await readFile(join(folder.path, 'arrived')), await readFile(join(folder.path, 'image')));

    before(async () => (target = await start()));
    after(() => target[Symbol.asyncDispose]());
    beforeEach(async () => {
      id = newId();
      folder = await tempFolder();
      const port = Number(target.config.port ?? new URL(String(target.config.endpoint)).port);
      proxy = await startSpoilingProxy(port);
      store = await openBackupStore({ id: newId(), type: type!, config: { ...target.config, ...through() } }, never);
    });
    afterEach('leaves nothing behind once the image is removed', async () => {
      await removeImage(store, id);
      await store.close();
      await proxy[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
      assert.deepEqual(await target.files(), []);
    });

    it('takes names as they are, whatever a program or a server could read into them', async () => {
      const { root, config } = target;
      // s3cmd cannot be told that they are no patterns
      const patterns = root === undefined ? '' : '*?';
      const odd = `odd ${patterns}[a-z] {x,y} ~%41+ü\\$HOME'"#&;:`;
      const place = root === undefined ? { prefix: odd } : { path: join(root, odd) };
      if (root !== undefined) await mkdir(join(root, odd));
      const open = (more: object) => openBackupStore({ id: newId(), type: type!, config: { ...config, ...more } }, never);
      if (root === undefined)
        await assert.rejects(open({ prefix: 'a*' }), { code: 'STORE_CONFIG', message: /takes them for patterns/ });
      await store.close();
      store = await open(place);
      await publish();
      const files = await target.files();
      assert.ok(files.length > 0 && files.every(file => file.includes(odd)), files.join('\n'));
      await fetch();
      await same();
    });

    it('keeps nothing of an upload that is cancelled while it runs', async () => {
      const cancel = new AbortController();
      const progress = (): void => cancel.abort(new CisternError('CANCELLED', 'the user said so'));
      await assert.rejects(publish(256 * MIB, { signal: cancel.signal, progress }), { code: 'CANCELLED' });
      assert.deepEqual(await target.files(), []);
      assert.deepEqual(await running(tool!), []);
    });

    it('begins anew when the connection is cut in the middle of a download', async () => {
      await publish();
      proxy.cutEvery = 1;
      proxy.cutTimes = 1;
      proxy.cutAfter = 8 * MIB;
      await fetch();
      assert.equal(proxy.spoilt, 1);
      await same();
    });

    it('publishes the right bytes or none, whichever bit is flipped on the way', async () => {
      proxy.flip = { way: 'up', at: 5 * MIB };
      await publish();
      proxy.flip = { way: 'down', at: 5 * MIB };
      const arrived = await fetch().then(
        () => true,
        (error: unknown) => {
          assert.ok(error instanceof CisternError && error.code === 'DIGEST_MISMATCH', String(error));
          return false;
        },
      );
      assert.equal(proxy.spoilt, 2);
      if (!arrived) assert.deepEqual(await readdir(folder.path), ['image']);
      await fetch();
      await same();
    });

    it('shows no secret to who lists the processes of the host', async () => {
      const { secretKey, privateKey } = target.config as Record<string, string | undefined>;
      const secrets = [secretKey, privateKey?.split('\n')[1]].filter(secret => secret !== undefined);
      const seen: string[] = [];
      let done = false;
      const looking = (async () => {
        while (!done) seen.push(...(await running(tool!)));
      })();
      await publish();
      await fetch();
      done = true;
      await looking;
      assert.ok(seen.length > 0, `${tool} was seen`);
      for (const words of new Set(seen)) for (const secret of secrets) assert.ok(!words.includes(secret), words);
    });

    it('leaves its work to ranges while the storage is held down to a rate', async () => {
      await publish(MIB);
      const pace = makePace(100 * MIB);
      const slow = pacedStore(store, pace);
      assert.equal((await slow.source(`images/${id}/image.raw`)).tool, undefined);
      setPace(pace, null);
      assert.equal((await slow.source(`images/${id}/image.raw`)).tool?.name, tool);
    });

    it('says which package brings a program that is not there', async () => {
      await makeImage(join(folder.path, 'image'), 1);
      const path = process.env.PATH;
      process.env.PATH = folder.path;
      try {
        await assert.rejects(fetchWithTool(), { code: 'TOOL_MISSING' });
      } finally {
        process.env.PATH = path;
      }
    });
    const fetchWithTool = async (): Promise<void> => {
      const sink = await store.sink(`images/${id}/image.raw`, 1, 5 * MIB);
      try {
        await sink.tool!.run(join(folder.path, 'image'), { signal: never, told: () => undefined });
      } finally {
        await sink.abort();
      }
    };
  });
}

/** What processes of this program were started with, their environment too. */
async function running(program: string): Promise<string[]> {
  const pids = (await readdir('/proc')).filter(pid => /^\d+$/.test(pid));
  const all = await Promise.all(
    pids.map(async pid => {
      const [argv, env] = await Promise.all(['cmdline', 'environ'].map(file => readFile(`/proc/${pid}/${file}`, 'utf8').catch(() => ''))); // prettier-ignore
      const words = argv!.split('\0');
      return words.slice(0, 2).some(word => word.endsWith(`/${program}`) || word === program) ? [`${argv} ${env}`] : [];
    }),
  );
  return all.flat();
}
