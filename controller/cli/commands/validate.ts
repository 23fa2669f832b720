import { z } from 'zod';
import type { CallOptions } from '../../../shared/http/client.ts';
import type { Operation } from '../../../shared/model.ts';
import type { Call } from '../command.ts';
import { followOperation } from '../follow.ts';
import { startOnce } from '../operation.ts';
import { reportOutcome } from '../outcome.ts';

const Cases = z.array(z.object({ name: z.string(), ok: z.boolean(), detail: z.string(), seconds: z.number() }));

/** Runs a validation to its end and lists its cases; 1 where one failed. */
export async function runValidate(call: Call, start: (options: CallOptions) => Promise<Operation>): Promise<number> {
  const operation = await followOperation(call, await startOnce(start));
  if (operation.state !== 'succeeded') return reportOutcome(call, operation);
  const cases = Cases.parse(operation.output?.cases ?? []);
  call.out.list<(typeof cases)[number]>(
    [
      { title: 'RESULT', value: one => (one.ok ? 'ok' : 'FAILED') },
      { title: 'SECONDS', value: one => one.seconds.toFixed(1), align: 'right' },
      { title: 'THE STORE', value: one => one.name },
      { title: 'WHY NOT', value: one => one.detail, yields: 1 },
    ],
    cases,
  );
  return cases.every(one => one.ok) ? 0 : 1;
}
