import type { ServerResponse } from 'node:http';
import type { Response } from 'express';

/** A comment now and then keeps proxies from ending a quiet stream. */
const KEEP_ALIVE_MS = 15_000;

/** Calls `work` once the client of a response has gone, which it may have done while the answer was being looked for. */
export function whenClosed(res: ServerResponse, work: () => void): void {
  if (res.closed) setImmediate(work);
  else res.once('close', work);
}

/** Begins a stream of server-sent events; `onClose` is called once, when the client has gone or `end` was called. */
export function openStream(
  res: Response,
  onClose: () => void,
): { send(event: string, data: unknown, id?: string | number): void; end(): void } {
  res.status(200).set({ 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store', 'X-Accel-Buffering': 'no' });
  res.flushHeaders();
  const timer = setInterval(() => res.write(': still here\n\n'), KEEP_ALIVE_MS);
  whenClosed(res, () => {
    clearInterval(timer);
    onClose();
  });
  return {
    send(event, data, id) {
      // a client that does not read is cut, so that its events do not pile up here; it may resume
      if (res.writableLength > 2 ** 20) return void res.destroy();
      res.write(`${id === undefined ? '' : `id: ${id}\n`}event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
    },
    end: () => void res.end(),
  };
}
