import { CisternError } from '../../shared/errors.ts';
import { isEnded } from '../operations/journal.ts';
import { answer, type Api, closed, type Handlers, keyOf } from './api.ts';
import { checkCursor, pageOf } from './paging.ts';
import { openStream } from './sse.ts';

type Keys = 'listOperations' | 'getOperation' | 'cancelOperation' | 'retryOperation' | 'operationEvents' | 'listEvents';

/** At most so many changes a second are sent of one operation; the last one always is. */
const CHANGE_MS = 200;
/** Streams open at once, of all clients. */
const STREAMS = 1000;

export function operationHandlers(api: Api): Handlers<Keys> {
  const { engine } = api;
  const { db, events } = api.services;
  let streams = 0;
  const claimStream = () => {
    if (streams >= STREAMS) throw new CisternError('BUSY', `${streams} event streams are open already`);
    streams++;
  };
  return {
    async listOperations({ query }) {
      let rows = db.read.selectFrom('operations').selectAll();
      if (query.state) rows = rows.where('state', '=', query.state);
      if (query.kind !== undefined) rows = rows.where('kind', '=', query.kind);
      if (query.resource !== undefined)
        rows = rows.where('resources_json', 'like', `%"${query.resource.replace(/[^0-9a-f-]/g, '')}"%`);
      const page = await pageOf(rows, query, 'desc');
      return { items: await engine.list(page.rows), next: page.next };
    },
    getOperation: ({ params, query }, { res }) =>
      query.wait ? engine.wait(params.ref, query.wait, closed(res)) : engine.get(params.ref),
    cancelOperation: ({ params }, { caller }) => engine.cancel(params.ref, caller),
    retryOperation: async ({ params }, context) =>
      answer(
        api,
        await engine.retry(params.ref, context.caller, { idempotencyKey: keyOf(context.req.headers['idempotency-key']) }),
        context,
      ),

    async operationEvents({ params }, { res }) {
      const id = (await engine.get(params.ref)).id;
      claimStream();
      let timer: NodeJS.Timeout | undefined;
      const unwatch = engine.watch(id, () => (timer ??= setTimeout(send, CHANGE_MS)));
      const stream = openStream(res, () => {
        streams--;
        unwatch();
        clearTimeout(timer);
      });
      const send = () => {
        timer = undefined;
        engine.get(id).then(
          operation => {
            stream.send('operation', operation);
            if (isEnded(operation.state)) stream.end();
          },
          () => stream.end(),
        );
      };
      send();
    },

    async listEvents({ query }, { req, res }) {
      checkCursor(query.cursor, /^\d{1,15}$/);
      const from = Math.max(query.after, Number(query.cursor ?? 0), Number(req.headers['last-event-id'] ?? 0) || 0);
      const items = await events.list(db.read, from, query.limit);
      if (!req.headers.accept?.includes('text/event-stream'))
        return { items, next: items.length === query.limit ? String(items.at(-1)!.seq) : null };
      claimStream();
      let last = from;
      let sending = Promise.resolve();
      const sendNew = async () => {
        for (let more = true; more;) {
          const fresh = await events.list(db.read, last, 500);
          for (const event of fresh) stream.send('event', event, event.seq);
          last = fresh.at(-1)?.seq ?? last;
          more = fresh.length === 500;
        }
      };
      const pump = () => (sending = sending.then(sendNew).catch(() => stream.end()));
      const unwatch = events.onChange(() => void pump());
      const stream = openStream(res, () => {
        streams--;
        unwatch();
      });
      await pump();
      return undefined as never;
    },
  };
}
