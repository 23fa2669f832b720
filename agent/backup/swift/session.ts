/** Requests with a token, which is renewed when it has run out. */
import { login, type Access, type Credentials } from './auth.ts';
import { statusError } from './errors.ts';
import { collect, openWire, type Answer, type Ask } from './http.ts';
import { parseObject } from './json.ts';

/** No answer that is not an image's bytes is larger: a listing of 10,000 names of 1024 bytes, escaped. */
const LARGEST_ANSWER = 64 * 2 ** 20;
const LONGEST_REASON = 4096;

export interface Request extends Pick<Ask, 'method' | 'headers' | 'body' | 'idleMs' | 'moved' | 'tried'> {
  /** Below the account, each segment escaped: `/container/a/b`. */
  path: string;
  query?: Record<string, string>;
  /** Statuses that are not failures, beside the 2xx. */
  takes?: readonly number[];
}

export interface Reply {
  status: number;
  headers: Answer['headers'];
  body: Buffer;
}

export interface Session extends Disposable {
  /** The token and where the account is, for another thread to begin with. */
  access(): Promise<Access>;
  /** The head of the answer, its body still to come. Throws what `statusError` says of a status that is not taken. */
  begin(request: Request): Promise<Answer>;
  /** The whole answer. */
  ask(request: Request, limit?: number): Promise<Reply>;
  /** What the cluster can do, as `/info` tells it; empty where it does not tell. */
  info(): Promise<Record<string, unknown>>;
}

/** Opens nothing yet: the first request asks for a token, unless there is one. */
export function openSession(credentials: Credentials, given?: Access): Session {
  const wire = openWire(credentials.ca);
  let access: Promise<Access> | undefined = given && Promise.resolve(given);
  let told: Promise<Record<string, unknown>> | undefined;

  const enter = (): Promise<Access> => {
    access ??= login(wire, credentials).catch((error: unknown) => {
      access = undefined;
      throw error;
    });
    return access;
  };
  const send = async (request: Request): Promise<{ answer: Answer; token: string }> => {
    const { token, url: account } = await enter();
    const url = new URL(account);
    const query = request.query === undefined ? '' : `?${new URLSearchParams(request.query).toString()}`;
    const { method, body, idleMs, moved, tried } = request;
    const answer = await wire.send({
      method,
      url,
      path: `${url.pathname.replace(/\/$/, '')}${request.path}${query}`,
      headers: { ...request.headers, 'x-auth-token': token },
      tried,
      ...(body && { body }),
      ...(idleMs !== undefined && { idleMs }),
      ...(moved && { moved }),
    });
    return { answer, token };
  };
  const begin = async (request: Request): Promise<Answer> => {
    let { answer, token } = await send(request);
    if (answer.status === 401) {
      await collect(answer, LONGEST_REASON).catch(() => undefined); // only its status counts
      if (access !== undefined && (await access).token === token) access = undefined; // nobody renewed it meanwhile
      ({ answer, token } = await send(request));
    }
    const { status } = answer;
    if ((status >= 200 && status < 300) || request.takes?.includes(status)) return answer;
    const said = await collect(answer, LONGEST_REASON).catch(() => Buffer.alloc(0));
    throw statusError(status, request.tried, said.toString('utf8').replaceAll(token, '...').replaceAll(credentials.key, '...'));
  };
  const ask = async (request: Request, limit = LARGEST_ANSWER): Promise<Reply> => {
    const answer = await begin(request);
    return { status: answer.status, headers: answer.headers, body: await collect(answer, limit) };
  };
  const look = async (): Promise<Record<string, unknown>> => {
    const url = new URL((await enter()).url);
    // beside the account: /v1/AUTH_x of Swift, /swift/v1 of Ceph
    const path = `${url.pathname.replace(/\/v1(\/.*)?$/, '')}/info`;
    const tried = `asking what ${url.host} can do`;
    const answer = await wire.send({ method: 'GET', url, path, tried });
    const body = await collect(answer, LARGEST_ANSWER);
    return answer.status === 200 ? parseObject(body, tried) : {};
  };
  return {
    access: enter,
    begin,
    ask,
    info: () => (told ??= look().catch((error: unknown) => ((told = undefined), Promise.reject(error as Error)))),
    [Symbol.dispose]: () => wire[Symbol.dispose](),
  };
}
