import { randomBytes } from 'node:crypto';
import { CisternError } from '../../shared/errors.ts';
import type { Capacity } from '../../shared/model.ts';
import { EndError } from '../transfer/end-error.ts';
import type { RangeEnd, Sink, Source } from '../transfer/ends.ts';
import { LARGEST_PART } from '../transfer/parts.ts';
import type { BackupDriver, BackupStore } from './driver.ts';
import { PROBE, probeName, staleProbes } from './probe.ts';
import { segmentsOf } from './paths.ts';
import type { Credentials } from './swift/auth.ts';
import { SwiftConfig } from './swift/config.ts';
import { collect, drop } from './swift/http.ts';
import { escaped, list, missing, nameOf, object, putSmall, removeAll, type Container } from './swift/objects.ts';
import { openSession, type Reply } from './swift/session.ts';
import type { ThreadData } from './swift/thread.ts';
import { discard, mostSegments, publish, segments, type Upload } from './swift/upload.ts';

/** More parts than any image has: each is named in a manifest, and a listing tells 10,000 a page. */
const MOST_PARTS = 100_000;

/** A container of OpenStack Swift, or of Ceph as it speaks Swift's language. `swift/upload.ts` says how images lie in it. */
export const swift: BackupDriver<SwiftConfig> = {
  type: 'swift',
  title: 'Container of OpenStack Swift',
  shared: true,
  config: SwiftConfig,
  connect: ({ config }, signal) => {
    signal.throwIfAborted();
    return Promise.resolve(openStore(config));
  },
};

function openStore(config: SwiftConfig): BackupStore {
  const { container, prefix: folder, ...credentials } = config;
  const prefix = folder === '' ? '' : `${folder}/`;
  const where: Container = {
    session: openSession(credentials),
    container,
    prefix,
    title: `swift ${container}/${prefix}`,
  };
  const checked = (path: string): string => segmentsOf(path).join('/');
  return {
    limits: { parts: MOST_PARTS, size: MOST_PARTS * LARGEST_PART },
    source: path => told(async () => source(where, credentials, checked(path))),
    sink: (path, size, partSize) => told(async () => sink(where, credentials, { name: checked(path), size, partSize })),
    read: (path, limit) => told(async () => readSmall(where, checked(path), limit)),
    write: (path, body) => told(async () => putSmall(where, checked(path), body)),
    list: path => told(async () => names(where, checked(path))),
    remove: path => told(async () => remove(where, checked(path))),
    check: () => told(() => check(where)),
    capacity: () => told(() => capacity(where)),
    close: () => Promise.resolve(where.session[Symbol.dispose]()),
  };
}

/** What threads and we share throws EndErrors. */
async function told<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw error instanceof EndError ? new CisternError(error.code, error.message, { cause: error }) : error;
  }
}

async function source(where: Container, credentials: Credentials, name: string): Promise<Source> {
  const { headers } = await where.session.ask(object(where, 'HEAD', name, { headers: NEWEST, doing: 'looking at' }));
  const etag = String(headers.etag ?? '').replaceAll('"', '');
  return {
    name: nameOf(where, name),
    size: Number(headers['content-length']),
    ranges: () => told(() => rangeEnd(where, credentials, { from: { name, etag } })),
  };
}

/** Of several copies of an object, the newest counts: one may have missed a write. */
const NEWEST = { 'x-newest': 'true' };

async function sink(where: Container, credentials: Credentials, upload: Upload): Promise<Sink> {
  const before = await segments(where, upload);
  const abort = (): Promise<void> => told(() => discard(where, upload));
  return {
    name: nameOf(where, upload.name),
    packs: true,
    kept: new Map([...before].map(([part, { digest }]) => [part, digest])),
    ranges: () => told(() => rangeEnd(where, credentials, { upload })),
    publish: parts =>
      told(() => publish(where, upload, parts)).catch(async (error: unknown) => {
        await abort();
        throw error;
      }),
    abort,
    park: () => Promise.resolve(),
  };
}

async function rangeEnd(
  { session, ...where }: Container,
  credentials: Credentials,
  end: Pick<ThreadData, 'from' | 'upload'>,
): Promise<RangeEnd> {
  const bell = new Int32Array(new SharedArrayBuffer(4));
  const data: ThreadData = { credentials, access: await session.access(), where, bell, ...end };
  const wake = (): void => {
    Atomics.store(bell, 0, 1);
    Atomics.notify(bell, 0);
  };
  return { module: new URL('./swift/thread.ts', import.meta.url).href, data, wake, release: () => Promise.resolve(wake()) };
}

async function readSmall(where: Container, name: string, limit: number): Promise<Buffer> {
  const answer = await where.session.begin(object(where, 'GET', name, { headers: NEWEST, doing: 'reading' }));
  const size = Number(answer.headers['content-length']);
  if (size <= limit) return await collect(answer, limit);
  drop(answer);
  throw new CisternError(
    'MANIFEST_INVALID',
    `reading ${nameOf(where, name)}: it has ${size} bytes, more than the ${limit} allowed`,
  );
}

async function names(where: Container, folder: string): Promise<string[]> {
  const found = new Set<string>();
  for await (const { name } of list(where, `${folder}/`, false)) found.add(name.slice(folder.length + 1).replace(/\/$/, ''));
  found.delete(''); // an object that stands for the folder itself, as other programs make them
  return [...found];
}

/** What makes an image show goes before what it consists of. */
async function remove(where: Container, path: string): Promise<void> {
  const all: string[] = [];
  for await (const { name } of list(where, path, true))
    if (name === path || name.startsWith(`${path}/`) || name.startsWith(`${path}.parts/`)) all.push(name);
  const [parts, others] = [true, false].map(want => all.filter(name => name.includes('.parts/') === want)) as [
    string[],
    string[],
  ];
  await removeAll(where, others);
  await removeAll(where, parts);
}

const lookAt = async ({ session, container, title }: Container): Promise<Reply> => {
  const tried = `opening ${title}`;
  const reply = await session.ask({ method: 'HEAD', path: `/${escaped(container)}`, takes: [404], tried });
  if (reply.status === 404) throw missing({ session, container, prefix: '', title }, tried);
  return reply;
};

async function check(where: Container): Promise<void> {
  await lookAt(where);
  await mostSegments(where);
  const probe = probeName();
  const body = randomBytes(64);
  try {
    await putSmall(where, probe, body);
    const back = await readSmall(where, probe, body.length);
    if (!back.equals(body))
      throw new CisternError('IO_ERROR', `reading a probe back from ${nameOf(where, probe)}: it is not what was written`);
  } finally {
    await removeAll(where, [probe]);
  }
  const probes: string[] = [];
  for await (const { name } of list(where, PROBE, true)) probes.push(name);
  await removeAll(where, staleProbes(probes));
}

/** The quota that ends first: of the container or of the account, which not everybody may see. */
async function capacity(where: Container): Promise<Capacity | null> {
  const ofContainer = roomIn((await lookAt(where)).headers, 'container');
  const account = await where.session.ask({
    method: 'HEAD',
    path: '',
    takes: [403, 404],
    tried: `looking at the account of ${where.title}`,
  });
  const ofAccount = account.status < 300 ? roomIn(account.headers, 'account') : undefined;
  const [least] = [ofContainer, ofAccount].filter(one => one !== undefined).sort((a, b) => a.available - b.available);
  return least ?? null;
}

function roomIn(headers: Reply['headers'], what: 'container' | 'account'): Capacity | undefined {
  const number = (name: string): number => Number.parseInt(String(headers[name]), 10);
  const [total, used] = [number(`x-${what}-meta-quota-bytes`), number(`x-${what}-bytes-used`)];
  return total >= 0 ? { total, available: Math.max(0, total - (used || 0)) } : undefined;
}
