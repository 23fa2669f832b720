import { z } from 'zod';
import { type ErrorCode, ERRORS } from './error-codes.ts';

export { type ErrorCode, ERRORS };

/** What was wrong with one replica of an image. */
export const ReplicaFault = z.object({ storeId: z.string(), code: z.string(), detail: z.string() });
export type ReplicaFault = z.infer<typeof ReplicaFault>;

/** `application/problem+json` (RFC 9457) with cistern's stable code. */
export const Problem = z
  .object({
    type: z.string(),
    title: z.string(),
    status: z.int(),
    code: z.string(),
    detail: z.string(),
    action: z.string(),
    retryable: z.boolean(),
    replicas: z.array(ReplicaFault).optional().describe('the replicas of an image that were tried in vain'),
  })
  .meta({ id: 'Problem', description: 'What was tried, what came back and what to do.' });
export type Problem = z.infer<typeof Problem>;

/** Characters of an error's words. Those of others get into them: files, programs, other services; a report must stay one that is taken. */
const MOST = 4096;

/** `text`, without its middle where it is too long: what was tried stands first, what came of it often last. */
const shortened = (text: string): string =>
  text.length <= MOST ? text : `${text.slice(0, MOST - 1000)} … ${text.slice(-990)}`.toWellFormed();

/** The one error class: a stable code and a sentence on what was tried, on what, and what came back. */
export class CisternError extends Error {
  override name = 'CisternError';
  readonly code: ErrorCode;
  /** Overrides the table's advice where the place that threw knows better. */
  readonly action: string | undefined;
  /** The replicas of an image that were tried in vain. */
  readonly replicas: ReplicaFault[] | undefined;
  constructor(
    code: ErrorCode,
    detail: string,
    options?: { cause?: unknown; action?: string; replicas?: ReplicaFault[] | undefined },
  ) {
    super(shortened(detail), { cause: options?.cause });
    this.code = code;
    this.action = options?.action && shortened(options.action);
    this.replicas = options?.replicas;
  }
  get retryable(): boolean {
    return ERRORS[this.code].retryable;
  }
}

/** Any thrown thing as a problem document. What is not a CisternError becomes INTERNAL with its message. */
export function toProblem(error: unknown): Problem {
  const known =
    error instanceof CisternError ? error : new CisternError('INTERNAL', error instanceof Error ? error.message : String(error));
  const kind = ERRORS[known.code];
  const action = known.action ?? kind.action;
  return {
    type: `urn:cistern:error:${known.code}`,
    title: kind.title,
    status: kind.status,
    code: known.code,
    detail: known.message,
    action,
    retryable: kind.retryable,
    ...(known.replicas && { replicas: known.replicas }),
  };
}

/** The error that a problem document stands for; unknown codes (a newer peer's) become INTERNAL and keep their words. */
export function fromProblem(problem: Problem): CisternError {
  const { action, replicas } = problem;
  if (Object.hasOwn(ERRORS, problem.code))
    return new CisternError(problem.code as ErrorCode, problem.detail, { action, replicas });
  return new CisternError('INTERNAL', `${problem.code}: ${problem.detail}`, { action });
}

/** `error` as a CisternError of `code`, unless it is one already: for the edges where foreign errors come in. */
export function wrapError(error: unknown, code: ErrorCode, tried: string): CisternError {
  if (error instanceof CisternError) return error;
  return new CisternError(code, `${tried}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
}
