/**
 * Large objects. Each part that is not of zeros is an object of its own, a segment, below `OBJECT.parts/`, and named by what it is:
 * number, and SHA-256 of its bytes. So what an attempt that was cut short has brought is told by a listing. A static large object put
 * under the final name, last, makes them one object; where it would name too many segments it names others of its kind, which name them.
 */
import { EndError } from '../../transfer/end-error.ts';
import { partRange, ZERO, type PartDigest } from '../../transfer/parts.ts';
import { list, object, put, removeAll, type Container } from './objects.ts';

/** More of them make a request that takes the server long: it looks at each. What a server allows may be less. */
const MOST_SEGMENTS = 1000;
const PUBLISH_IDLE_MS = 300_000;
const SEGMENT = /^([0-9]{8})-([0-9a-f]{64})$/;

export interface Upload {
  /** The final name. */
  name: string;
  size: number;
  partSize: number;
}

/** Segments of the same image cut in another way lie elsewhere. */
export const folderOf = ({ name, size, partSize }: Upload): string => `${name}.parts/${size}-${partSize}/`;
export const segmentOf = (upload: Upload, part: number, digest: PartDigest): string =>
  `${folderOf(upload)}${String(part).padStart(8, '0')}-${digest}`;

interface Segment {
  name: string;
  bytes: number;
  /** MD5 in hex; the server looks only at the size where it is missing. */
  etag?: string;
}

/** The segments of an upload that are listed, by part. */
export async function segments(where: Container, upload: Upload): Promise<Map<number, Segment & { digest: string }>> {
  const found = new Map<number, Segment & { digest: string }>();
  const folder = folderOf(upload);
  for await (const { name, bytes, hash } of list(where, folder, true)) {
    const [, number, digest] = SEGMENT.exec(name.slice(folder.length)) ?? [];
    const part = Number(number);
    if (digest === undefined || bytes !== partRange(part, upload.size, upload.partSize).length) continue;
    found.set(part, { name, bytes, etag: hash, digest });
  }
  return found;
}

/**
 * Puts the object together from the segments of its parts, and removes what other attempts left. TRANSFER_CHANGED where a segment is not
 * there.
 */
export async function publish(where: Container, upload: Upload, parts: readonly PartDigest[]): Promise<void> {
  const listed = await segments(where, upload);
  const all: Segment[] = [];
  for (const [part, digest] of parts.entries()) {
    if (digest === ZERO) continue;
    const known = listed.get(part);
    all.push(known?.digest === digest ? known : await look(where, upload, part, digest));
  }
  await discard(where, upload, new Set(all.map(({ name }) => name)));
  if (all.length === 0) {
    await put(where, upload.name, Buffer.alloc(0));
    return;
  }
  const most = await mostSegments(where);
  let level = all;
  for (let depth = 0; level.length > most; depth++) {
    const above: Segment[] = [];
    for (let at = 0; at < level.length; at += most) {
      const name = `${folderOf(upload)}level-${depth}-${at / most}`;
      above.push(await join(where, name, level.slice(at, at + most)));
    }
    level = above;
  }
  await join(where, upload.name, level);
}

/** How many segments a large object may name. STORE_CONFIG where the server has none such. */
export async function mostSegments({ session, title }: Container): Promise<number> {
  const info = await session.info();
  const known = Object.keys(info).length > 0;
  if (known && !('slo' in info))
    throw new EndError('STORE_CONFIG', `opening ${title}: the server has no static large objects, which images are stored as`);
  const { max_manifest_segments: most } = (info['slo'] ?? {}) as { max_manifest_segments?: unknown };
  return typeof most === 'number' && most > 1 ? Math.min(most, MOST_SEGMENTS) : MOST_SEGMENTS;
}

/** A segment that is not listed (yet). */
async function look(where: Container, upload: Upload, part: number, digest: PartDigest): Promise<Segment> {
  const name = segmentOf(upload, part, digest);
  const bytes = partRange(part, upload.size, upload.partSize).length;
  const request = object(where, 'HEAD', name, { takes: [404], doing: 'looking at' });
  const { status, headers } = await where.session.ask(request);
  if (status !== 404 && Number(headers['content-length']) === bytes) return { name, bytes };
  throw new EndError('TRANSFER_CHANGED', `${request.tried}: it was stored, and is no longer there`);
}

async function join(where: Container, name: string, pieces: readonly Segment[]): Promise<Segment> {
  const { container, prefix } = where;
  const manifest = pieces.map(piece => ({
    path: `/${container}/${prefix}${piece.name}`,
    size_bytes: piece.bytes,
    ...(piece.etag !== undefined && { etag: piece.etag }),
  }));
  await put(where, name, Buffer.from(JSON.stringify(manifest)), {
    query: { 'multipart-manifest': 'put' },
    headers: { 'content-type': 'application/octet-stream' },
    idleMs: PUBLISH_IDLE_MS,
  });
  return { name, bytes: pieces.reduce((sum, { bytes }) => sum + bytes, 0) };
}

/** Removes what has arrived of an upload, but for what is to be kept. */
export async function discard(where: Container, { name }: Upload, kept: ReadonlySet<string> = new Set()): Promise<void> {
  const names: string[] = [];
  for await (const one of list(where, `${name}.parts/`, true)) if (!kept.has(one.name)) names.push(one.name);
  await removeAll(where, names);
}
