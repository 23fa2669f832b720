/** Objects of one container, by their names below the prefix. */
import { hash } from 'node:crypto';
import { EndError } from '../../transfer/end-error.ts';
import { statusError } from './errors.ts';
import { parseJson, parseObject } from './json.ts';
import type { Reply, Request, Session } from './session.ts';

/** Names deleted by one request: some seconds of work for the server. */
const BATCH = 500;
/** Deletions at once, where the server takes one a request. */
const AT_ONCE = 8;
const BULK_IDLE_MS = 300_000;
const SMALL_LIMIT = 2 ** 20;

export interface Container {
  session: Session;
  container: string;
  /** Ends in "/" or is empty. */
  prefix: string;
  /** For messages: `swift container/prefix/`. */
  title: string;
}

export interface Listed {
  name: string;
  bytes: number;
  /** MD5 in hex; of a large object, of its manifest. */
  hash: string;
}

export const escaped = (path: string): string => path.split('/').map(encodeURIComponent).join('/');
export const pathOf = ({ container, prefix }: Container, name: string): string =>
  `/${escaped(container)}/${escaped(prefix + name)}`;
export const nameOf = ({ title }: Container, name: string): string => `${title}${name}`;

/** A request for one object. */
export function object(
  where: Container,
  method: Request['method'],
  name: string,
  more: Partial<Request> & { doing: string },
): Request {
  const { doing, ...rest } = more;
  return { ...rest, method, path: pathOf(where, name), tried: `${doing} ${nameOf(where, name)}` };
}

/** A write answered by 404 says that there is no container. */
export async function put(where: Container, name: string, body: Uint8Array, more: Partial<Request> = {}): Promise<Reply> {
  const request = object(where, 'PUT', name, { ...more, body, takes: [404], doing: 'writing' });
  const reply = await where.session.ask(request, SMALL_LIMIT);
  if (reply.status === 404) throw missing(where, request.tried);
  return reply;
}

/** A small object, whole or not at all. */
export const putSmall = async (where: Container, name: string, body: Buffer): Promise<void> =>
  void (await put(where, name, body, { headers: { etag: hash('md5', body, 'hex') } }));

export function missing({ container }: Container, tried: string): EndError {
  return new EndError('STORE_CONFIG', `${tried}: there is no container "${container}"`);
}

/**
 * What is below a path, as it comes, page by page. With `flat` false, folders are one entry each, told by a name that ends in "/".
 * A server may be some moments behind with what it lists.
 */
export async function* list(where: Container, below: string, flat: boolean): AsyncGenerator<Listed> {
  const { session, container, prefix } = where;
  const tried = `listing ${nameOf(where, below)}`;
  let marker = '';
  for (;;) {
    const query = { format: 'json', prefix: prefix + below, ...(flat ? {} : { delimiter: '/' }), ...(marker && { marker }) };
    const reply = await session.ask({ method: 'GET', path: `/${escaped(container)}`, query, takes: [404], tried });
    if (reply.status === 404) throw missing(where, tried);
    const page = reply.body.length === 0 ? [] : parseJson(reply.body, tried);
    if (!Array.isArray(page)) throw new EndError('STORE_UNREACHABLE', `${tried}: the answer is no list`);
    if (page.length === 0) return;
    const before = marker;
    for (const entry of page as Record<string, unknown>[]) {
      const full = String(entry['name'] ?? entry['subdir'] ?? '');
      if (!full.startsWith(prefix + below)) throw new EndError('STORE_UNREACHABLE', `${tried}: it lists what was not asked for`);
      marker = full;
      yield { name: full.slice(prefix.length), bytes: Number(entry['bytes'] ?? 0), hash: String(entry['hash'] ?? '') };
    }
    if (marker === before) throw new EndError('STORE_UNREACHABLE', `${tried}: it lists the same page again`);
  }
}

/** Deletes objects; those that are not there are no failure. */
export async function removeAll(where: Container, names: readonly string[]): Promise<void> {
  const bulk = names.length > 1 && 'bulk_delete' in (await where.session.info());
  for (let at = 0; at < names.length; at += BATCH) {
    const batch = names.slice(at, at + BATCH);
    if (bulk) await removeBulk(where, batch);
    else await removeEach(where, batch);
  }
}

async function removeEach(where: Container, names: readonly string[]): Promise<void> {
  const waiting = [...names];
  const work = async (): Promise<void> => {
    for (let name = waiting.shift(); name !== undefined; name = waiting.shift())
      await where.session.ask(object(where, 'DELETE', name, { takes: [404], doing: 'removing' }), SMALL_LIMIT);
  };
  const done = await Promise.allSettled(Array.from({ length: Math.min(AT_ONCE, names.length) }, work));
  for (const one of done) if (one.status === 'rejected') throw one.reason;
}

/** Middleware bulk: what became of the request stands in the body of an answer that is always 200. */
async function removeBulk(where: Container, names: readonly string[]): Promise<void> {
  const tried = `removing ${names.length} objects below ${where.title}`;
  const { body } = await where.session.ask({
    method: 'POST',
    path: '',
    query: { 'bulk-delete': '' },
    headers: { 'content-type': 'text/plain', accept: 'application/json' },
    body: Buffer.from(names.map(name => `${pathOf(where, name)}\n`).join('')),
    idleMs: BULK_IDLE_MS,
    tried,
  });
  const { Errors: errors, 'Response Status': status = '' } = parseObject(body, tried);
  const [first] = Array.isArray(errors) ? (errors as [string, string][]) : [];
  const worst = first?.[1] ?? String(status);
  const number = Number.parseInt(worst, 10);
  if (first !== undefined || (number >= 300 && number !== 404)) throw statusError(number, tried, first?.[0]);
}
