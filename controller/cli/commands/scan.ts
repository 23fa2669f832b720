import { z } from 'zod';
import type { CallOptions } from '../../../shared/http/client.ts';
import type { Operation } from '../../../shared/model.ts';
import type { Call } from '../command.ts';
import { followOperation } from '../follow.ts';
import { namesOf } from '../lists.ts';
import { startOnce } from '../operation.ts';
import { reportOutcome } from '../outcome.ts';
import { formatAge, formatBytes } from '../units.ts';

const Differences = z.array(
  z.object({
    what: z.string(),
    kind: z.string(),
    id: z.string(),
    name: z.string().optional(),
    hostId: z.string().optional(),
    size: z.number().nullish(),
    createdAt: z.string().nullish(),
    note: z.string().optional(),
  }),
);

/** Runs a scan to its end and lists what only one side has. */
export async function runScan(call: Call, start: (options: CallOptions) => Promise<Operation>): Promise<number> {
  const operation = await followOperation(call, await startOnce(start));
  if (operation.state !== 'succeeded') return reportOutcome(call, operation);
  const found = Differences.parse(operation.output?.differences ?? []);
  if (found.length === 0) {
    call.out.say('What lies there is what is known.', found);
    return 0;
  }
  const nameOf = await namesOf(call, 'host');
  call.out.list<(typeof found)[number]>(
    [
      { title: 'WHAT', value: d => d.what },
      { title: 'KIND', value: d => d.kind },
      { title: 'NAME', value: d => d.name ?? '' },
      { title: 'HOST', value: d => (d.hostId === undefined ? '' : nameOf(d.hostId)), yields: 1 },
      { title: 'SIZE', value: d => formatBytes(d.size), align: 'right' },
      { title: 'CREATED', value: d => formatAge(d.createdAt), align: 'right' },
      { title: 'NOTE', value: d => d.note ?? '', yields: 2 },
      { title: 'ID', value: d => d.id, whole: true },
    ],
    found,
  );
  return 0;
}
