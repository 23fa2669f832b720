/** Where tokens come from: TempAuth's way (v1), and Keystone's with a password (Identity API v3). */
import type { ErrorCode } from '../../../shared/errors.ts';
import { EndError } from '../../transfer/end-error.ts';
import type { SwiftConfig } from './config.ts';
import { collect, type Answer, type Wire } from './http.ts';
import { statusError } from './errors.ts';
import { parseObject } from './json.ts';

export type Credentials = Pick<
  SwiftConfig,
  'authUrl' | 'authVersion' | 'user' | 'key' | 'userDomain' | 'project' | 'projectDomain' | 'region' | 'endpoint' | 'ca'
>;

/** What requests need: a token, and the URL of the account. */
export interface Access {
  token: string;
  url: string;
}

const LARGEST_CATALOGUE = 2 ** 20;

/** A new token. STORE_AUTH where the credentials are refused, STORE_CONFIG where there is no such service or no storage in it. */
export async function login(wire: Wire, credentials: Credentials): Promise<Access> {
  const access = await (credentials.authVersion === 1 ? loginV1 : loginV3)(wire, credentials);
  if (URL.parse(access.url) === null)
    throw new EndError(
      'STORE_CONFIG',
      `${triedOf(credentials)}: it names "${access.url.slice(0, 200)}" as the storage, which is no URL`,
    );
  if (credentials.authUrl.startsWith('https:') && access.url.startsWith('http:') && credentials.endpoint === undefined)
    throw new EndError(
      'STORE_CONFIG',
      `${triedOf(credentials)}: it names ${access.url} as the storage, where the token would not be encrypted; give "endpoint"`,
    );
  return access;
}

const triedOf = ({ user, authUrl }: Credentials): string => `asking ${new URL(authUrl).host} for a token of ${user}`;

async function loginV1(wire: Wire, credentials: Credentials): Promise<Access> {
  const tried = triedOf(credentials);
  const url = new URL(credentials.authUrl);
  const headers = { 'x-auth-user': asHeader(credentials.user), 'x-auth-key': asHeader(credentials.key) };
  const answer = await wire.send({ method: 'GET', url, path: url.pathname + url.search, headers, tried });
  await collect(answer, LARGEST_CATALOGUE);
  refuse(answer, [200, 204], credentials);
  const { 'x-auth-token': token, 'x-storage-url': storage } = answer.headers;
  if (typeof token !== 'string' || typeof storage !== 'string')
    throw new EndError('STORE_CONFIG', `${tried}: the answer holds no token: it is not a service of authVersion 1`);
  return { token, url: credentials.endpoint ?? storage };
}

async function loginV3(wire: Wire, credentials: Credentials): Promise<Access> {
  const tried = triedOf(credentials);
  const url = new URL(credentials.authUrl);
  const base = url.pathname.replace(/\/+$/, '');
  const path = `${base.endsWith('/v3') ? base : `${base}/v3`}/auth/tokens`;
  const { user, key, userDomain, project, projectDomain } = credentials;
  const identity = { methods: ['password'], password: { user: { name: user, domain: { name: userDomain }, password: key } } };
  const scope = { project: { name: project, domain: { name: projectDomain } } };
  const body = Buffer.from(JSON.stringify({ auth: { identity, scope } }));
  const headers = { 'content-type': 'application/json', accept: 'application/json' };
  const answer = await wire.send({ method: 'POST', url, path, headers, body, tried });
  const said = await collect(answer, LARGEST_CATALOGUE);
  refuse(answer, [201], credentials);
  const token = answer.headers['x-subject-token'];
  if (typeof token !== 'string') throw new EndError('STORE_CONFIG', `${tried}: the answer holds no token: it is not Keystone`);
  return { token, url: credentials.endpoint ?? storageIn(parseObject(said, tried), credentials) };
}

/** Bytes of UTF-8, as Swift reads headers; Node takes them as Latin-1. */
const asHeader = (text: string): string => Buffer.from(text).toString('latin1');

/** Its words are left out: a service may repeat what it was sent. */
function refuse({ status }: Answer, taken: readonly number[], credentials: Credentials): void {
  if (taken.includes(status)) return;
  const codes: Record<number, ErrorCode> = { 400: 'STORE_CONFIG', 401: 'STORE_AUTH', 403: 'STORE_AUTH' };
  const code = codes[status] ?? (status < 400 || status === 404 || status === 405 ? 'STORE_CONFIG' : undefined);
  const tried = triedOf(credentials);
  if (code === undefined) throw statusError(status, tried);
  const words =
    code === 'STORE_AUTH' ? "the user or the key is wrong, or the project is not the user's" : 'is it the URL of such a service?';
  throw new EndError(code, `${tried}: it answered ${status} (${words})`);
}

interface Service {
  type?: unknown;
  endpoints?: { interface?: unknown; url?: unknown; region?: unknown; region_id?: unknown }[];
}

/** The public URL of the object storage in a token's catalogue. */
function storageIn(answer: Record<string, unknown>, credentials: Credentials): string {
  const { catalog } = (answer['token'] ?? {}) as { catalog?: Service[] };
  const services = Array.isArray(catalog) ? catalog.filter(({ type }) => type === 'object-store') : [];
  const all = services.flatMap(({ endpoints }) => endpoints ?? []).filter(one => one.interface === 'public');
  const { region } = credentials;
  const fitting = region === undefined ? all : all.filter(one => one.region === region || one.region_id === region);
  const [first] = fitting;
  if (typeof first?.url === 'string' && fitting.length === 1) return first.url;
  const regions = [...new Set(all.map(one => String(one.region ?? one.region_id)))].join(', ');
  const why =
    all.length === 0 ? 'its catalogue has no object storage' : `its catalogue has object storage in the regions ${regions}`;
  throw new EndError('STORE_CONFIG', `${triedOf(credentials)}: ${why}; give "region" or "endpoint"`);
}
