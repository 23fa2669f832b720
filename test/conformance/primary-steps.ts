import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Pool } from '../../agent/primary/driver.ts';
import { fileSource } from '../../agent/transfer/file-end.ts';
import { digestOf, digestOfParts, PART_SIZE, partCount } from '../../agent/transfer/parts.ts';
import { transfer } from '../../agent/transfer/transfer.ts';
import { newId } from '../../shared/id.ts';
import { exec, ext4Place, folderPlace, type Place, signal } from './primary-targets.ts';

export const MiB = 2 ** 20;
export const root = process.getuid?.() === 0;

/** Where each registered driver is tried. `nfs` has a file of its own: this kernel may not be able to mount it. */
export const TARGETS: { name: string; type: string; place: () => Promise<Place> }[] = [
  { name: 'local on a folder', type: 'local', place: folderPlace },
  ...(root ? onDisk() : []),
];
function onDisk(): typeof TARGETS {
  const shared = async (): Promise<Place> => ({ ...(await ext4Place()), type: 'shared-dir' });
  return [
    { name: 'local on an ext4 of its own', type: 'local', place: () => ext4Place() },
    { name: 'shared-dir on an ext4 of its own', type: 'shared-dir', place: shared },
  ];
}
if (!root) console.warn('not root: pools on a file system of their own are not tried');

/** Adds one test to a story. */
type AddTest = (title: string, test: (place: Place) => Promise<void>) => void;

/** Tells a story on every target, each of its tests in a new place. */
export function onEveryTarget(story: string, tell: (it: AddTest) => void): void {
  for (const { name, place: makePlace } of TARGETS)
    describe(`primary storage: ${name}: ${story}`, () => {
      let place: Place;
      beforeEach(async () => void (place = await makePlace()));
      afterEach(() => place[Symbol.asyncDispose]());
      tell((title, test) => it(title, () => test(place)));
    });
}

export const volumes = (count: number) => Array.from({ length: count }, () => ({ id: newId(), layerId: newId() }));
/** Makes volumes: clones of an image with this digest, or else with that which the cache says. */
export async function make(pool: Pool, specs: ReturnType<typeof volumes>, size: number, imageId?: string, published?: string) {
  const digest = async (id: string): Promise<string> => published ?? (await pool.cached(id, 'qcow2'))?.digest ?? '0'.repeat(64);
  const backing = imageId === undefined ? null : { imageId, format: 'qcow2' as const, digest: await digest(imageId) };
  return pool.createVolumes(newId(), specs, size, backing, signal, () => undefined);
}

/** An image of 8 MiB with something in it, brought into the cache as a transfer does it. */
export async function cacheImage(pool: Pool, place: Place, data = 2): Promise<string> {
  const id = newId();
  const path = join(place.outside, `${id}.qcow2`);
  await exec('qemu-img', ['create', '-q', '-f', 'qcow2', path, '8M']);
  await exec('qemu-io', ['-f', 'qcow2', '-c', `write -q -P 0xa5 1M ${data}M`, path]);
  await fill(pool, id, path);
  return id;
}

/** What a manifest says of a file. */
export async function partsOf(path: string): Promise<{ partSize: number; parts: string[]; digest: string }> {
  const bytes = await readFile(path);
  const parts = Array.from({ length: partCount(bytes.length) }, (_, i) =>
    digestOf(bytes.subarray(i * PART_SIZE, (i + 1) * PART_SIZE)),
  );
  return { partSize: PART_SIZE, parts, digest: digestOfParts(bytes.length, PART_SIZE, parts) };
}

export async function fill(pool: Pool, id: string, path: string): Promise<void> {
  const source = await fileSource(path);
  const sink = await pool.cacheSink({
    id,
    format: 'qcow2',
    size: source.size,
    virtualSize: 8 * MiB,
    ...(await partsOf(path)),
  });
  await transfer({ source, sink, streams: 1, stallSeconds: 10, signal });
}

export const code = (expected: string) => (error: unknown) => {
  assert.equal((error as { code?: string }).code, expected, String(error));
  return true;
};

/** A program that has a volume open for writing, as a VM has. */
export async function openIn(path: string): Promise<AsyncDisposable> {
  const child = spawn('qemu-io', ['-f', 'qcow2', path], { stdio: ['pipe', 'pipe', 'inherit'] });
  child.stdin.write('write 0 4k\n');
  await once(child.stdout, 'data');
  return {
    [Symbol.asyncDispose]: async () => {
      const ended = once(child, 'exit');
      child.stdin.end('quit\n');
      await ended;
    },
  };
}
