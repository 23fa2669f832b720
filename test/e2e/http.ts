/** Plain HTTP against the controller, for what a typed client would not let pass or does not show. */
import type { Service } from '../servers/cistern.ts';

export interface Answer {
  status: number;
  headers: Headers;
  text: string;
  /** The body as JSON, or undefined. */
  json: Record<string, unknown> | undefined;
}

/** One request with the service's token; `init.headers` may replace it. */
export async function ask(service: Service, method: string, path: string, init: RequestInit = {}): Promise<Answer> {
  const headers = new Headers({ Authorization: `Bearer ${service.token}` });
  for (const [name, value] of new Headers(init.headers)) headers.set(name, value);
  const response = await fetch(`${service.url}${path}`, { ...init, method, headers, signal: AbortSignal.timeout(70_000) });
  const text = await response.text();
  let json: Answer['json'];
  try {
    json = JSON.parse(text) as Answer['json'];
  } catch {
    // not every answer is JSON
  }
  return { status: response.status, headers: response.headers, text, json };
}

export const send = (
  service: Service,
  method: string,
  path: string,
  body: unknown,
  headers: Record<string, string> = {},
): Promise<Answer> =>
  ask(service, method, path, { body: JSON.stringify(body), headers: { 'Content-Type': 'application/json', ...headers } });

export interface Sent {
  event: string;
  id: string | undefined;
  data: unknown;
}

/** Server-sent events of a path until the stream ends, `signal` aborts or the loop is left. */
export async function* events(service: Service, path: string, headers: Record<string, string> = {}): AsyncGenerator<Sent> {
  const leave = new AbortController();
  const signal = AbortSignal.any([leave.signal, AbortSignal.timeout(60_000)]);
  const response = await fetch(`${service.url}${path}`, {
    headers: { Authorization: `Bearer ${service.token}`, Accept: 'text/event-stream', ...headers },
    signal,
  });
  if (!response.headers.get('content-type')?.startsWith('text/event-stream'))
    throw new Error(`no event stream: ${await response.text()}`);
  let text = '';
  try {
    for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
      text += chunk;
      for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
        const fields = new Map(text.slice(0, end).split('\n').map(line => line.split(/: (.*)/s).slice(0, 2) as [string, string])); // prettier-ignore
        text = text.slice(end + 2);
        if (fields.has('data'))
          yield { event: fields.get('event') ?? '', id: fields.get('id'), data: JSON.parse(fields.get('data')!) as unknown };
      }
    }
  } finally {
    leave.abort();
  }
}
