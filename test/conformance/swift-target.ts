/** Swift as a storage of the backup suite, seen past the driver by requests of our own and on its disk. */
import assert from 'node:assert/strict';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { startSwift, type TestSwift } from '../servers/swift.ts';
import { PART } from './backup-image.ts';
import type { BackupTarget } from './backup-target.ts';

interface Entry {
  name: string;
  bytes: number;
  hash: string;
}

export const quoted = (path: string): string => path.split('/').map(encodeURIComponent).join('/');

/** A request that must succeed. */
export async function must(server: TestSwift, ...what: Parameters<TestSwift['request']>): Promise<Response> {
  const answer = await server.request(...what);
  assert.ok(answer.ok, `${what[0]} ${what[1]} was answered with ${answer.status} ${await answer.clone().text()}`);
  return answer;
}

export async function makeContainer(server: TestSwift, name: string, headers: Record<string, string> = {}): Promise<void> {
  await must(server, 'PUT', `/${quoted(name)}`, { headers });
}

/** What is in a container below a prefix; parts of what is published do not count. */
export async function published(server: TestSwift, container: string, prefix: string): Promise<string[]> {
  const found = await listed(server, container, prefix);
  const names = new Set(found.map(({ name }) => name.slice(prefix.length)));
  return [...names].filter(name => !names.has(name.split('.parts/')[0]!) || !name.includes('.parts/')).sort();
}

export async function listed(server: TestSwift, container: string, prefix: string): Promise<Entry[]> {
  const query = new URLSearchParams({ format: 'json', prefix });
  return (await (await must(server, 'GET', `/${quoted(container)}?${query.toString()}`)).json()) as Entry[];
}

/** The segments of a large object in order, those named by way of others too. */
export async function segmentsOf(server: TestSwift, path: string): Promise<{ name: string; bytes: number }[]> {
  const answer = await must(server, 'GET', `${path}?multipart-manifest=get`);
  const entries = (await answer.json()) as { name: string; bytes: number; sub_slo?: boolean }[];
  const deep = entries.map(async one => (one.sub_slo ? await segmentsOf(server, quoted(one.name)) : [one]));
  return (await Promise.all(deep)).flat();
}

/** A container in a Swift that lets a large object name few segments, so that images here take several levels of them. */
export async function startSwiftTarget(): Promise<BackupTarget> {
  const server = await startSwift({ maxSegments: 3 });
  try {
    return await targetOn(server);
  } catch (error) {
    await server.stop();
    throw error;
  }
}

async function targetOn(server: TestSwift): Promise<BackupTarget> {
  const [container, prefix] = ['images & more', 'ours/ä b'];
  const config = { ...server.config, container, prefix };
  const at = (path: string): string => `/${quoted(`${container}/${prefix}/${path}`)}`;
  await makeContainer(server, container, { 'x-container-read': 'test:reader' });
  return {
    config,
    missing: { config: { ...config, container: 'nowhere' }, words: /nowhere/ },
    locked: { config: { ...config, user: 'test:reader', key: 'reading' }, words: /images & more/ },
    small: async () => {
      // what others have there counts; nearly all is theirs, because the proxy remembers for a minute how much there is
      const [name, filler] = ['small', new Uint8Array(3.5 * PART)];
      await makeContainer(server, name, { 'x-container-meta-quota-bytes': String(4 * PART) });
      await must(server, 'PUT', `/${name}/filler`, { body: filler });
      await server.forget();
      return {
        config: { ...config, container: name },
        files: () => published(server, name, `${prefix}/`),
        [Symbol.asyncDispose]: () => Promise.resolve(),
      };
    },
    files: () => published(server, container, `${prefix}/`),
    readObject: async path => Buffer.from(await (await must(server, 'GET', at(path))).arrayBuffer()),
    writeObject: async (path, body) => void (await must(server, 'PUT', at(path), { body: new Uint8Array(body) })),
    stored: async path => {
      const all = await listed(server, container, `${prefix}/${path}.parts/`);
      return all.filter(({ name }) => !name.includes('/level-')).reduce((sum, { bytes }) => sum + bytes, 0);
    },
    damage: (path, offset) => damage(server, at(path), offset),
    shorten: async (path, size) => {
      let left = size;
      const kept = (await segmentsOf(server, at(path))).filter(({ bytes }) => (left -= bytes) >= 0);
      await must(server, 'PUT', `${at(path)}?multipart-manifest=put`, {
        body: JSON.stringify(kept.map(({ name }) => ({ path: name }))),
      });
    },
    [Symbol.asyncDispose]: () => server.stop(),
  };
}

/** Flips a bit of a large object on the disk of the server. */
async function damage(server: TestSwift, path: string, offset: number): Promise<void> {
  let at = offset;
  const segment = (await segmentsOf(server, path)).find(({ bytes }) => {
    if (at < bytes) return true;
    at -= bytes;
    return false;
  });
  assert.ok(segment, `${path} has a byte ${offset}`);
  const body = Buffer.from(await (await must(server, 'GET', quoted(segment.name))).arrayBuffer());
  const names = await readdir(server.disk, { recursive: true });
  for (const name of names.filter(one => one.endsWith('.data'))) {
    const file = join(server.disk, name);
    const data = await readFile(file);
    if (!data.equals(body)) continue;
    data[at]! ^= 1;
    await writeFile(file, data); // its attributes, which hold the server's own checksum, stay
    return;
  }
  throw new Error(`${segment.name} is not found on the disk of the server`);
}
