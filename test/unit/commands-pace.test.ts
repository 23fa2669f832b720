import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { publishImage, readManifest } from '../../agent/backup/layout.ts';
import { openBackupStore } from '../../agent/backup/registry.ts';
import { fileSource } from '../../agent/transfer/file-end.ts';
import { createPaces } from '../../agent/worker/paces.ts';
import { newId } from '../../shared/id.ts';
import { type Host, MiB, ref, startHost } from './commands-host.ts';

const NEVER = new AbortController().signal;
/** What the image would take at the slow pace: longer than the test may. */
const SIZE = 96 * MiB;
const SLOW = MiB;

describe('the pace of a task', function () {
  this.timeout(60_000);
  let host: Host;
  const image = { id: newId(), format: 'raw' as const, virtualSize: SIZE };
  let from: Awaited<ReturnType<Host['store']>>;
  let digest: string;

  before(async () => {
    host = await startHost();
    from = await host.store();
    const file = join(host.base, 'disk.raw');
    await writeFile(file, randomBytes(SIZE));
    const store = await openBackupStore(ref(from), NEVER);
    const source = await fileSource(file, { name: 'disk' });
    ({ digest } = (
      await publishImage(store, image, source, { streams: 2, stallSeconds: 10, signal: NEVER, partSize: MiB })
    ).manifest);
  });
  after(() => host[Symbol.asyncDispose]());

  for (const which of ['from', 'to'] as const)
    it(`holds down what goes ${which} a backup storage, and may change meanwhile`, async () => {
      const to = await host.store();
      const paces = createPaces({ [{ from, to }[which].id]: SLOW });
      const seen: { done: number; at: number }[] = [];
      const progress = (_stage: string, done: number): void => {
        seen.push({ done, at: performance.now() });
        // what has crossed shows that it was slow; now it may go on as fast as it can
        if (done > 4 * MiB) paces.set({ [{ from, to }[which].id]: null });
      };
      const input = { image: { id: image.id, format: image.format, digest }, from: [ref(from)], to: ref(to) };
      await host.run('image.copy', input, { paces, progress });
      const slow = seen.filter(({ done }) => done <= 4 * MiB);
      assert.ok(slow.length > 2, 'the beginning was seen');
      const [first, last] = [slow[0]!, slow.at(-1)!];
      // bytes count half when they are read and half when they are written, and the other end is free: the part that each stream is at may count at once
      const allowed = (SLOW * (last.at - first.at)) / 1000 + 2 * MiB;
      assert.ok(last.done - first.done <= allowed, `${last.done - first.done} bytes, ${allowed} were allowed`);
      const store = await openBackupStore(ref(to), NEVER);
      assert.equal((await readManifest(store, image.id)).digest, digest);
    });
});
