import type { controllerRoutes } from '../../shared/contract/controller.ts';
import { CisternError } from '../../shared/errors.ts';
import type { RouteContext, RouteHandlers } from '../../shared/http/bind.ts';
import type { Operation, Role } from '../../shared/model.ts';
import { shownOf } from '../../shared/secret.ts';
import type { Engine } from '../operations/engine.ts';
import type { Workflow } from '../operations/workflow.ts';
import type { Services } from '../services.ts';
import { whenClosed } from './sse.ts';

/** What the handlers of the API work with. */
export interface Api {
  services: Services;
  engine: Engine;
  version: string;
  /** Resolved once the hosts have been asked what they have seen of this controller. */
  met: Promise<void>;
}

/** Handlers of some routes of the controller. */
export type Handlers<K extends keyof typeof controllerRoutes> = Pick<RouteHandlers<typeof controllerRoutes>, K>;

/** Longest that `Prefer: wait` and `?wait` hold an answer. */
const MOST_WAIT_SECONDS = 60;

/** Starts an operation for a request, minding `Idempotency-Key` and `Prefer: wait=N`. */
export async function startOperation<R, P>(
  api: Api,
  workflow: Workflow<R, P>,
  request: R,
  context: RouteContext,
): Promise<Operation> {
  const idempotencyKey = keyOf(context.req.headers['idempotency-key']);
  const shown = shownOf(context.route.body, request);
  const asked = { by: context.caller.name, role: context.route.role as Role };
  const operation = await api.engine.start(workflow, request, { ...asked, shown, idempotencyKey });
  return answer(api, operation, context);
}

/** The operation as it is, or as it is once the time that the client prefers to wait is over. */
export async function answer(api: Api, operation: Operation, { req, res }: RouteContext): Promise<Operation> {
  res.setHeader('Location', `/api/v1/operations/${operation.id}`);
  const wait = /(?:^|[,;\s])wait=(\d{1,4})/.exec(String(req.headers.prefer ?? ''))?.[1];
  if (wait === undefined) return operation;
  const seconds = Math.min(Number(wait), MOST_WAIT_SECONDS);
  res.setHeader('Preference-Applied', `wait=${seconds}`);
  return api.engine.wait(operation.id, seconds, closed(res));
}

export function keyOf(header: string | string[] | undefined): string | undefined {
  if (header === undefined) return undefined;
  if (typeof header !== 'string' || !/^[\x21-\x7e]{1,128}$/.test(header))
    throw new CisternError('BAD_REQUEST', 'Idempotency-Key: 1 to 128 printable characters without spaces');
  return header;
}

/** Aborted when the client has gone. */
export function closed(res: RouteContext['res']): AbortSignal {
  const gone = new AbortController();
  whenClosed(res, () => gone.abort());
  return gone.signal;
}
