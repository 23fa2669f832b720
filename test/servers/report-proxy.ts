import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** What may happen to a batch of reports on its way to the controller. */
export const MISCHIEF = ['passed', 'doubled', 'unanswered', 'lost', 'late', 'replayed'] as const;
export type Mischief = (typeof MISCHIEF)[number];

export interface ReportProxy extends AsyncDisposable {
  /** What agents take for the controller. */
  url: string;
  /** Where the controller really is; until this is said nothing passes. */
  target: string;
  /** How often each came to pass. */
  counts: Record<Mischief, number>;
  /** From now on all is passed on as it comes. */
  behave(): void;
}

interface Sent {
  path: string;
  headers: Record<string, string>;
  body: Buffer<ArrayBuffer>;
}

/** Stands between agents and their controller, and does to each batch of reports what `choose` says. Loopback, any free port. */
export async function startReportProxy(choose: () => Mischief): Promise<ReportProxy> {
  const counts = Object.fromEntries(MISCHIEF.map(what => [what, 0])) as Record<Mischief, number>;
  const past: Sent[] = [];
  const waiting: Sent[] = [];
  let good = false;

  const forward = ({ path, headers, body }: Sent): Promise<Response> =>
    fetch(`${proxy.target}${path}`, { method: 'POST', headers, body, signal: AbortSignal.timeout(10_000) });

  async function serve(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of req) chunks.push(chunk as Buffer);
    const headers = { authorization: req.headers.authorization!, 'content-type': req.headers['content-type']! };
    const sent = { path: req.url!, headers, body: Buffer.concat(chunks) };
    const what = good ? 'passed' : choose();
    counts[what]++;
    past.push(sent);
    if (what === 'lost' || what === 'late') {
      if (what === 'late') waiting.push(sent);
      return void req.socket.destroy();
    }
    // the end of a batch that nobody waits for any more
    if (what === 'replayed') await forward(past[Math.floor(past.length / 2)]!);
    const answer = await forward(sent);
    if (what === 'doubled') await forward(sent);
    for (const late of waiting.splice(0)) await forward(late);
    if (what === 'unanswered') return void req.socket.destroy();
    res.writeHead(answer.status, { 'content-type': answer.headers.get('content-type') ?? '' });
    res.end(Buffer.from(await answer.arrayBuffer()));
  }

  // while the controller is away the agent sees that its request came to nothing
  const server = createServer((req, res) => void serve(req, res).catch(() => req.socket.destroy()));
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const proxy: ReportProxy = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    target: 'http://127.0.0.1:1',
    counts,
    behave: () => void (good = true),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await once(server.close(), 'close');
    },
  };
  return proxy;
}
