import { setTimeout as delay } from 'node:timers/promises';
import type { Command } from 'commander';
import { CisternError } from '../../../shared/errors.ts';
import { Event } from '../../../shared/model.ts';
import { type Call, leaf, type Runtime } from '../command.ts';
import { oneLine } from '../io.ts';
import { listFor, withLimit } from '../lists.ts';
import { followEvents } from '../sse.ts';
import type { Column } from '../table.ts';
import { parseCount } from '../units.ts';

/** A controller that does not answer for so long is taken as gone. */
const LOST_SECONDS = 60;

const resourceOf = ({ resource }: Event): string => (resource ? `${resource.kind}/${resource.id}` : '');

const columns: Column<Event>[] = [
  { title: 'SEQ', value: e => String(e.seq), align: 'right', yields: 2 },
  { title: 'AT', value: e => e.at },
  { title: 'TYPE', value: e => e.type },
  { title: 'MESSAGE', value: e => e.message },
  { title: 'BY', value: e => e.by ?? '', yields: 3 },
  { title: 'RESOURCE', value: resourceOf, yields: 1 },
];

/** `cistern event`: what happened, and what happens. */
export function addEventCommands(runtime: Runtime, program: Command): void {
  const event = program.command('event').description('what happened, and what happens');
  withLimit(
    leaf(runtime, event, {
      usage: 'list',
      summary: 'List events, oldest first',
      examples: [
        'event list',
        'event list --after 1200',
        'event list --follow',
        'event list --follow --output json | jq .message',
      ],
      action: async call => {
        const { after, follow } = call.options as { after: number; follow?: boolean };
        const events = await listFor(call, page => call.client.listEvents({ query: { ...page, after } }));
        if (!follow) return call.out.list(columns, events);
        for (const past of events) print(call, past);
        await followFrom(call, events.at(-1)?.seq ?? after);
      },
    })
      .option('--after <seq>', 'only events after this number', parseCount(0), 0)
      .option('--follow', 'go on with events as they happen, one a line, until Ctrl-C'),
  );
}

/** One event a line: JSON lines for programs, columns that need no table for people. */
function print(call: Call, event: Event): void {
  const line = call.out.json
    ? JSON.stringify(event)
    : oneLine(`${event.at}  ${event.type.padEnd(24)}  ${event.message}${event.resource ? `  (${resourceOf(event)})` : ''}`);
  call.io.stdout.write(`${line}\n`);
}

/** Ends with Ctrl-C, or when the controller has not answered for a minute. */
async function followFrom(call: Call, first: number): Promise<void> {
  let last = first;
  let answered = performance.now();
  const stop = new AbortController();
  const off = call.io.onInterrupt(() => stop.abort());
  try {
    for (;;) {
      try {
        for await (const { data } of followEvents(call.connection, `/api/v1/events?after=${last}`, stop.signal, String(last))) {
          const event = Event.parse(JSON.parse(data));
          answered = performance.now();
          if (event.seq > last) print(call, event);
          last = Math.max(last, event.seq);
        }
      } catch (error) {
        if (stop.signal.aborted) return;
        if (!(error instanceof CisternError) || !error.retryable) throw error;
        // a quiet stream that is cut after a long time is a cut now, not a silence since then
        if (error.code !== 'CONTROLLER_UNREACHABLE' || (await isAlive(call))) answered = performance.now();
        if (performance.now() - answered > LOST_SECONDS * 1000) throw error;
      }
      await delay(1000, undefined, { signal: stop.signal });
    }
  } catch (error) {
    if (!stop.signal.aborted) throw error;
  } finally {
    off();
  }
}

const isAlive = (call: Call): Promise<boolean> =>
  call.client.healthz(undefined, { timeoutSeconds: 5 }).then(
    () => true,
    () => false,
  );
