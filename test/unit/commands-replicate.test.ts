import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { publishImage } from '../../agent/backup/layout.ts';
import { openBackupStore } from '../../agent/backup/registry.ts';
import { fileSource } from '../../agent/transfer/file-end.ts';
import { createPaces } from '../../agent/worker/paces.ts';
import { newId } from '../../shared/id.ts';
import { code, type Host, MiB, ref, startHost } from './commands-host.ts';
import type { Store } from './commands-steps.ts';
import { flipBit } from './damage.ts';

const NEVER = new AbortController().signal;
const PARTS = 24;

describe('the command that copies an image to another backup storage', function () {
  this.timeout(60_000);
  let host: Host;
  let bytes: Buffer;
  let image: { id: string; format: 'raw'; digest: string };
  let good: Store;
  let bad: Store;

  const folder = (store: Store): string => join(store.path, 'images', image.id);
  const object = (store: Store): string => join(folder(store), 'image.raw');

  async function publish(store: Store, id: string, file: string): Promise<string> {
    const opened = await openBackupStore(ref(store), NEVER);
    const options = { streams: 2, stallSeconds: 10, signal: NEVER, partSize: MiB };
    const what = { id, name: 'disk', format: 'raw' as const, virtualSize: bytes.length };
    return (await publishImage(opened, what, await fileSource(file, { name: 'disk' }), options)).manifest.digest;
  }

  before(async () => {
    host = await startHost();
    bytes = randomBytes(PARTS * MiB);
    bytes.fill(0, 8 * MiB, 16 * MiB);
    const file = join(host.base, 'disk.raw');
    await writeFile(file, bytes);
    [good, bad] = [await host.store(), await host.store()];
    const id = newId();
    image = { id, format: 'raw', digest: await publish(good, id, file) };
    await publish(bad, id, file);
    await writeFile(object(bad), flipBit(bytes, 20 * MiB, 1));
  });
  after(() => host[Symbol.asyncDispose]());

  const copy = (from: Store[], to: Store, options: Parameters<Host['run']>[2] = {}) =>
    host.run('image.copy', { image, from: from.map(ref), to: ref(to) }, options);

  it('passes over a replica that is damaged, and says so', async () => {
    const to = await host.store();
    const { storeId, faults, transfer } = await copy([bad, good], to);
    assert.deepEqual([storeId, faults.map(fault => [fault.storeId, fault.code])], [good.id, [[bad.id, 'DIGEST_MISMATCH']]]);
    assert.deepEqual([transfer.zeroParts, transfer.zeroBytes], [8, 8 * MiB]);
    assert.ok((await readFile(object(to))).equals(bytes));
  });

  it('leaves nothing where all of them are damaged', async () => {
    const to = await host.store();
    await assert.rejects(copy([bad], to), /part 20 of/);
    assert.deepEqual(await readdir(to.path, { recursive: true }).then(all => all.filter(name => name.includes('.'))), []);
  });

  it('takes no replica that is sound in itself but another image', async () => {
    const [to, other] = [await host.store(), await host.store()];
    const file = join(host.base, 'other.raw');
    await writeFile(file, randomBytes(2 * MiB));
    await publish(other, image.id, file);
    const { storeId, faults } = await copy([other, good], to);
    assert.deepEqual([storeId, faults[0]!.code], [good.id, 'DIGEST_MISMATCH']);
    assert.match(faults[0]!.detail, /was published with the digest/);
  });

  it('puts the zeros back that a packed object leaves out', async () => {
    const [to, packed] = [await host.store(), await host.store()];
    await copy([good], packed);
    const manifest = join(folder(packed), 'manifest.json');
    await writeFile(object(packed), Buffer.concat([bytes.subarray(0, 8 * MiB), bytes.subarray(16 * MiB)]));
    const told = JSON.parse(await readFile(manifest, 'utf8')) as Record<string, unknown>;
    await writeFile(manifest, JSON.stringify({ ...told, packed: true }));
    await copy([packed], to);
    assert.ok((await readFile(object(to))).equals(bytes));
  });

  it('leaves nothing when it is cancelled', async () => {
    const to = await host.store();
    const cancel = new AbortController();
    const progress = (): void => cancel.abort();
    // slow enough to be cancelled in the middle
    const paces = createPaces({ [to.id]: MiB });
    await assert.rejects(copy([good], to, { signal: cancel.signal, progress, paces }), code('CANCELLED'));
    assert.deepEqual(await readdir(to.path, { recursive: true }).then(all => all.filter(name => name.includes('.'))), []);
  });
});
